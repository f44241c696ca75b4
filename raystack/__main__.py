"""`raystack VERB ...` and `python -m raystack VERB ...`."""

import sys

from raystack.cli.process import run as main

if __name__ == "__main__":
    sys.exit(main())
