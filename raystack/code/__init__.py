"""The user's code: importing and calling it, and shipping it to where it runs."""
