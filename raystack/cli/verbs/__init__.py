"""The verbs: one file each, with a record called VERB. A new file is a new verb."""
