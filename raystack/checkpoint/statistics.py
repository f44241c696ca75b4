"""Statistics of a model's inputs and outputs, in its `model/` folder: what served requests are compared with.

A tensor of few elements per sample, such as a row of a table, has statistics for each of them; the elements
of a larger one, such as an image, or of one whose size is free are taken together. Strings count by their
lengths in bytes.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raystack import strict_json
from raystack.errors import Problem, ServingError
from raystack.task import TensorSpec

STATISTICS = "statistics.json"
FORMAT = 1

COLUMNS = 32
"""Most elements of a sample that have statistics of their own."""
PICKED = 256
"""Elements that are taken at random of a larger sample."""
BINS = 10
"""Bins with as many values each."""
PER_BIN = 20
"""Fewest values in such a bin."""
CLASSES = 1000
"""Most different integers that are counted one by one."""

Array = np.ndarray[Any, np.dtype[Any]]

_MOMENTS = (np.mean, np.std, np.min, np.max)


@dataclass(frozen=True)
class Feature:
    """Values of one element of a tensor over all samples, or of all its elements."""

    count: int
    """Number of values, missing ones among them."""
    missing: int
    """Number of NaN."""
    mean: float
    """This and the next three are of finite values; NaN if there is none."""
    std: float
    min: float
    max: float
    classes: tuple[int, ...] | None
    """The different integers, ascending, if there are few."""
    edges: tuple[float, ...]
    """Upper edges of the bins but the last, which is open, of what is not counted by classes."""
    counts: tuple[int, ...]
    """Values in each bin and, last, missing ones; or of each class and, last, of others."""

    @classmethod
    def of(cls, values: Array) -> "Feature":
        """Describe values, which are a flat array of numbers."""
        finite = values[np.isfinite(values)].astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            moments = [float(f(finite)) if len(finite) else math.nan for f in _MOMENTS]
        classes = np.unique(values) if values.dtype.kind in "iub" else np.empty(0)
        few = 0 < len(classes) <= CLASSES
        bare = cls(
            count=len(values),
            missing=int(np.isnan(values).sum()),
            mean=moments[0],
            std=moments[1],
            min=moments[2],
            max=moments[3],
            classes=tuple(int(each) for each in classes) if few else None,
            edges=() if few else _edges(finite),
            counts=(),
        )
        return cls(**{**vars(bare), "counts": tuple(int(count) for count in bare.histogram(values))})

    def histogram(self, values: Array) -> Array:
        """Count values by this feature's bins or classes."""
        if self.classes is not None:
            classes = np.array(self.classes)
            places = np.minimum(np.searchsorted(classes, values), len(classes) - 1)
            places = np.where(classes[places] == values, places, len(classes))
            return np.bincount(places, minlength=len(classes) + 1)
        missing = np.isnan(values)
        places = np.searchsorted(self.edges, values[~missing].astype(np.float64))
        return np.append(np.bincount(places, minlength=len(self.edges) + 1), missing.sum())


Tensors = Mapping[str, tuple[Feature, ...]]


@dataclass(frozen=True)
class DataStatistics:
    """What is known of a model's data."""

    source: str
    """Which data: `eval_data`, one of its sets, or `train_data`."""
    samples: int
    inputs: Tensors
    """Features by the name of an input."""
    outputs: Tensors
    """Features by the name of an output; empty if they were not computed."""


def columns(spec: TensorSpec, array: Array, random: np.random.Generator) -> list[Array]:
    """Return the values of each feature of a tensor, as flat arrays of numbers."""
    flat = array.reshape(len(array), -1)
    if flat.dtype == np.dtype(object):
        lengths = [len(text.encode() if isinstance(text, str) else text) for text in flat.ravel()]
        flat = np.array(lengths, np.int64).reshape(flat.shape)
    elif flat.dtype.kind not in "biuf":  # bfloat16 is no kind of NumPy's own
        flat = flat.astype(np.float32)
    if -1 not in spec.shape[1:] and flat.shape[1] <= COLUMNS:
        return list(flat.T)
    if flat.shape[1] > PICKED:
        flat = flat[:, random.integers(flat.shape[1], size=PICKED)]
    return [flat.ravel()]


class Collector:
    """Takes the samples of tensors, and describes them."""

    def __init__(self, specs: Iterable[TensorSpec]) -> None:
        self._specs = list(specs)
        self._parts: dict[str, list[list[Array]]] = {spec.name: [] for spec in self._specs}
        self._random = np.random.default_rng(0)

    def add(self, arrays: Mapping[str, Array]) -> None:
        """Take samples, by the names of their tensors."""
        for spec in self._specs:
            self._parts[spec.name].append(columns(spec, arrays[spec.name], self._random))

    def describe(self) -> Tensors:
        """Describe what was taken."""
        return {
            name: tuple(Feature.of(np.concatenate(values)) for values in zip(*parts, strict=True))
            for name, parts in self._parts.items()
        }


def write_statistics(folder: Path, statistics: DataStatistics) -> None:
    """Write statistics into the existing `folder`."""
    values = {"format": FORMAT, **asdict(statistics)}
    (folder / STATISTICS).write_text(strict_json.dumps(values), encoding="utf-8")


def read_statistics(folder: Path) -> DataStatistics | None:
    """Read the statistics of the `model/` folder at `folder`.

    None if it has none, as that of an earlier raystack, or those of a later one. Raises ServingError if the
    file is damaged.
    """
    path = folder / STATISTICS
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            return None
        sides = [
            {name: tuple(map(_feature, features)) for name, features in values[side].items()}
            for side in ("inputs", "outputs")
        ]
        return DataStatistics(values["source"], values["samples"], *sides)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ServingError(
            Problem(str(path), rule=f"the model's statistics cannot be read: {error}")
        ) from None


def _feature(values: dict[str, Any]) -> Feature:
    moments = strict_json.numbers({name: values[name] for name in ("mean", "std", "min", "max")})
    classes = values["classes"]
    lists = {
        "classes": None if classes is None else tuple(classes),
        "edges": tuple(values["edges"]),
        "counts": tuple(values["counts"]),
    }
    return Feature(**{**values, **moments, **lists})


def _edges(finite: Array) -> tuple[float, ...]:
    """Return edges between bins of about as many values, the first below and the last at all values.

    They are values themselves, so that a value that is there often is in one bin.
    """
    if not len(finite):
        return ()
    bins = max(1, min(BINS, len(finite) // PER_BIN))
    quantiles = np.quantile(finite, np.linspace(0, 1, bins + 1), method="inverted_cdf")
    return tuple(np.unique([np.nextafter(quantiles[0], -np.inf), *quantiles]).tolist())
