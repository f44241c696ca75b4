"""The manifest of a checkpoint: its step, its position in the data, and the SHA-256 of every file."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from raystack import strict_json
from raystack.config.training import KeepBest

NAME = "manifest.json"
STATE = "state"
FORMAT = 2
"""Version of the checkpoint format; a manifest with another one is rejected."""


@dataclass(frozen=True)
class FileEntry:
    """Hash and size of one file of a checkpoint."""

    sha256: str
    """In hexadecimal."""
    bytes: int


@dataclass(frozen=True)
class Patience:
    """What early stopping has seen of its metric."""

    metric: str
    mode: str
    step: int
    """Step of the last evaluation that was seen."""
    best: float | None = None
    """Best value of the metric; None as long as it was not a number."""
    best_step: int = 0
    stale: int = 0
    """Evaluations since then."""


@dataclass(frozen=True)
class Manifest:
    """Description of a checkpoint and all its files."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    run_id: str
    step: int
    """Optimizer steps done."""
    samples: int
    """Position in the data: samples consumed since the start of the run, over all workers and epochs."""
    dataset_length: int | None
    """Samples per epoch; `samples // dataset_length` is the epoch. None for a stream without a length."""
    seed: int
    global_batch: int
    world_size: int
    """Number of workers that wrote it; any number of workers can resume from it."""
    strategy: str
    """Strategy that wrote it, for information only: the format of the state does not depend on it."""
    attempt: str = ""
    """Driver, attempt and token of the writer. Its state is in a folder of that name, so that the files of
    two attempts at one step are never mixed.
    """
    shuffle: bool = True
    """Whether the order of the samples was drawn from the seed."""
    bucket: int | None = None
    """Global batches in a window of samples sorted by length; None if they are not sorted."""
    weighted: bool = False
    """Whether the samples were drawn by their weights."""
    optimizer: str | None = None
    """Kind of the optimizer, which says what its state is; None if it was written before there was this."""
    elapsed_s: float = 0.0
    """Seconds of training until then, over all attempts."""
    patience: Patience | None = None
    """State of early stopping, with or without the evaluation of this step; None without early stopping."""
    evaluates: bool = False
    """Whether an evaluation of these weights was due."""
    init_from: Mapping[str, Any] | None = None
    """What the run began with, as in `model.json`; None for the task's own weights."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Metrics of an evaluation of exactly these weights; empty if there was none, or if it did not end."""
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    """Entries by path relative to the checkpoint's folder, with forward slashes."""
    format: int = FORMAT

    @property
    def state(self) -> str:
        """Path of the training state, relative to the checkpoint's folder."""
        return f"{STATE}/{self.attempt}"

    def to_json(self) -> str:
        """Return the manifest as JSON, for `from_json`."""
        return strict_json.dumps(asdict(self), indent=2, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Parse a manifest. Raises ValueError with the reason if `text` is not one of this format."""
        try:
            values = json.loads(text)
            if values["format"] != FORMAT:
                raise ValueError(f"format {values['format']}, this raystack reads {FORMAT}")
            values["metrics"] = strict_json.numbers(values.get("metrics", {}))
            manifest: Manifest = TypeAdapter(cls).validate_python(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ValueError(f"not a manifest: {where}: {first['msg']}") from None
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a manifest: {error}") from None
        for name in manifest.files:
            if name.startswith("/") or ".." in name.split("/"):
                raise ValueError(f"not a manifest: it lists a file outside of its checkpoint: {name}")
        return manifest


def describe_files(folder: Path) -> dict[str, FileEntry]:
    """Return the entries of all files below `folder`, except its manifest."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != NAME)
    return {path.relative_to(folder).as_posix(): describe_file(path) for path in paths}


def describe_file(path: Path) -> FileEntry:
    """Return the entry of a local file."""
    return FileEntry(sha256(path), path.stat().st_size)


def missing_files(files: Mapping[str, FileEntry], sizes: Mapping[str, int]) -> list[str]:
    """Return the names of `files` that are missing from `sizes`, in bytes by name, or differ in size."""
    return [name for name, entry in files.items() if sizes.get(name) != entry.bytes]


def sha256(path: Path) -> str:
    """Return the SHA-256 of a local file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def retained_steps(manifests: Iterable[Manifest], last: int, best: KeepBest | None) -> set[int]:
    """Return the steps that retention keeps: the `last` newest ones, and the best ones by a metric."""
    ordered = sorted(manifests, key=lambda manifest: manifest.step)
    steps = {manifest.step for manifest in ordered[-last:]}
    if best is not None:
        steps |= {manifest.step for manifest in ranked(ordered, best)[: best.count]}
    return steps


def ranked(manifests: Iterable[Manifest], best: KeepBest) -> list[Manifest]:
    """Return the manifests with a finite value of the metric, best first; on a tie, the earlier first."""
    sign = -1 if best.mode == "max" else 1
    # A diverged run reports NaN, which would make the order depend on where the sort meets it.
    measured = [
        manifest for manifest in manifests if math.isfinite(manifest.metrics.get(best.metric, math.nan))
    ]
    return sorted(measured, key=lambda manifest: (sign * manifest.metrics[best.metric], manifest.step))
