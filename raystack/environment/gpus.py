"""The GPUs of this machine that a process may use, without PyTorch or CUDA."""

import os
import re
import subprocess

DEVICES = "/dev"
"""The folder in which the driver has a file `nvidia<number>` for each GPU."""
MEMORY = ("nvidia-smi", "--query-gpu=memory.total,memory.reserved", "--format=csv,noheader,nounits")
"""The command that prints two numbers of MiB for each GPU; the driver keeps the second for itself."""
MEMORY_S = 10
"""Seconds that it may take."""


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


def memory_gib() -> float | None:
    """Return the GiB that CUDA has on each GPU, the smallest if they differ; None if it is not known."""
    if "MIG-" in os.environ.get("CUDA_VISIBLE_DEVICES", ""):  # a part of a GPU, whose size is not printed
        return None
    try:
        told = subprocess.run(MEMORY, capture_output=True, text=True, timeout=MEMORY_S, check=True).stdout
        sizes = [line.split(",") for line in told.splitlines()]
        return min(float(total) - float(kept) for total, kept in sizes) / 1024
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
