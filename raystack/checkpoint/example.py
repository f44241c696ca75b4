"""One real sample of a model's inputs, in its `model/` folder: for whoever wants to see what to send."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

EXAMPLE = "example.safetensors"
Array = np.ndarray[Any, np.dtype[Any]]


def write_example(folder: Path, inputs: Mapping[str, Array]) -> None:
    """Write one sample into `folder`, which exists: arrays of shape [1, ...] by the names of the
    signature.
    """
    save_file({name: np.ascontiguousarray(array) for name, array in inputs.items()}, folder / EXAMPLE)


def read_example(folder: Path) -> dict[str, Array] | None:
    """The sample of the `model/` folder at `folder`; None where it has none."""
    path = folder / EXAMPLE
    return dict(load_file(path)) if path.is_file() else None
