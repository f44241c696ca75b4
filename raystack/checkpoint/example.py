"""One real sample of a model's inputs, in its `model/` folder: for whoever wants to see what to send.

Texts, which safetensors does not have, are in the file's metadata, as JSON by their names.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

EXAMPLE = "example.safetensors"
Array = np.ndarray[Any, np.dtype[Any]]


def write_example(folder: Path, inputs: Mapping[str, Array]) -> None:
    """Write one sample into `folder`, which exists: arrays of shape [1, ...] by the names of the
    signature, and arrays of objects, which are str, for texts.
    """
    tensors = {name: array for name, array in inputs.items() if array.dtype != object}
    texts = {name: json.dumps(array.tolist()) for name, array in inputs.items() if name not in tensors}
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    save_file(contiguous, folder / EXAMPLE, metadata=texts or None)


def sent(array: Array) -> Any:
    """Return an input as `predict` gets it: a new tensor, which a task may change, or an array of bytes."""
    import torch

    if array.dtype == np.dtype(object):
        return np.frompyfunc(str.encode, 1, 1)(array)
    if array.dtype.kind == "V":  # bfloat16, which is no kind of NumPy's own
        return torch.tensor(array.view(np.int16)).view(torch.bfloat16)
    return torch.tensor(array)


def read_example(folder: Path) -> dict[str, Array] | None:
    """The sample of the `model/` folder at `folder`; None where it has none."""
    path = folder / EXAMPLE
    if not path.is_file():
        return None
    with safe_open(path, "numpy") as file:
        texts = file.metadata() or {}
    return load_file(path) | {name: np.array(json.loads(text), object) for name, text in texts.items()}
