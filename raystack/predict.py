"""`python -m raystack.predict config.yaml --in FILES --out FOLDER [key=value ...]`: the verb as a module."""

import sys

from raystack.cli.process import run

if __name__ == "__main__":
    sys.exit(run("predict"))
