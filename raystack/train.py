"""`python -m raystack.train config.yaml [key=value ...]`: the verb as a module."""

import sys

from raystack.cli.main import main

if __name__ == "__main__":
    sys.exit(main(verb="train"))
