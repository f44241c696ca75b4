"""The GPUs of this machine that a process may use, without PyTorch or CUDA."""

import os
import re

DEVICES = "/dev"
"""The folder in which the driver has a file `nvidia<number>` for each GPU."""


def visible() -> int:
    """Return their number, as CUDA counts them: those of CUDA_VISIBLE_DEVICES, or all."""
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        there = sum(re.fullmatch(r"nvidia\d+", name) is not None for name in os.listdir(DEVICES))
    except OSError:
        return 0
    if names is None or not there:
        return there
    shown = [name.strip() for name in names.split(",")]
    # CUDA takes none after the first name that is not one.
    return next((at for at, name in enumerate(shown) if name in ("", "-1")), len(shown))
