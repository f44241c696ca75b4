"""Text for people: lines on the terminal or in a notebook, tables, and the progress of a run."""
