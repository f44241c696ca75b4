"""The command line: one file for each verb, over the Python API. The only room that knows argparse."""
