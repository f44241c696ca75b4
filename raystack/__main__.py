"""`raystack VERB ...` and `python -m raystack VERB ...`."""

import sys

from raystack.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
