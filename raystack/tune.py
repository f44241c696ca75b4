"""`python -m raystack.tune config.yaml [key=value ...]`: the verb as a module."""

import sys

from raystack.cli.process import run

if __name__ == "__main__":
    sys.exit(run("tune"))
