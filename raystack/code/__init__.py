"""The user's code: how it is imported and called, and the archives in which it travels."""
