"""Probe: `python -m raystack.kuberay.inpod.alive PORT/PATH ...` checks that all URLs answer.

Run by the kubelet. Needs only Python in the image, and exits with 0 if each URL answers with status 200.
"""

import sys
import urllib.error
import urllib.request
from collections.abc import Sequence

TIMEOUT_S = 4.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the probe and return the exit status."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy leads back to this pod
    for place in sys.argv[1:] if argv is None else argv:
        try:
            with opener.open(f"http://127.0.0.1:{place}", timeout=TIMEOUT_S):
                pass
        except (urllib.error.URLError, OSError) as error:
            sys.stderr.write(f"{place}: {error}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
