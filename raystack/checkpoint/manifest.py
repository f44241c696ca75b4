"""The manifest makes a folder a checkpoint: what it is, where in the data it stands, and the SHA-256 of each
file.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from raystack.config.training import KeepBest

NAME = "manifest.json"
STATE = "state"
FORMAT = 2


@dataclass(frozen=True)
class FileEntry:
    """One file of a checkpoint."""

    sha256: str
    """In hexadecimal."""
    bytes: int
    """Size."""


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds. `samples` is the position in the data: every position below it has been
    consumed.
    """

    run_id: str
    step: int
    """Optimizer steps done."""
    samples: int
    """Samples consumed since the start of the run, over all workers and epochs."""
    dataset_length: int | None
    """Samples of the training data; position // dataset_length is the epoch. None for a stream that does not
    say.
    """
    seed: int
    global_batch: int
    world_size: int
    """Workers that wrote it; any number of them can go on from it."""
    strategy: str
    """What the weights were spread by; information, the state itself does not depend on it."""
    attempt: str = ""
    """Which attempt of the run wrote it; whoever writes it says so. Its state has a folder of that name, so
    that two attempts at a step never mix.
    """
    shuffle: bool = True
    """Whether the samples come in an order drawn from the seed."""
    bucket: int | None = None
    """Global batches in a window of samples sorted by length; None where they are not sorted."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Metrics of an evaluation of exactly these weights; empty if there was none."""
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    """By path relative to the checkpoint's folder, with forward slashes."""
    format: int = FORMAT

    @property
    def state(self) -> str:
        """Path of the training state, relative to the checkpoint's folder."""
        return f"{STATE}/{self.attempt}"

    def to_json(self) -> str:
        """Text for `from_json`."""
        return json.dumps(asdict(self), indent=2, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Raises ValueError with the reason where `text` is not a manifest that this raystack reads."""
        try:
            values = json.loads(text)
            if values["format"] != FORMAT:
                raise ValueError(f"format {values['format']}, this raystack reads {FORMAT}")
            return cls(
                **{**values, "files": {path: FileEntry(**entry) for path, entry in values["files"].items()}}
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a manifest: {error}") from None


def describe_files(folder: Path) -> dict[str, FileEntry]:
    """Hash every file below `folder`."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != NAME)
    return {
        path.relative_to(folder).as_posix(): FileEntry(sha256(path), path.stat().st_size) for path in paths
    }


def absent(files: Mapping[str, FileEntry], sizes: Mapping[str, int]) -> list[str]:
    """Names of `files` that `sizes`, in bytes by name, lacks or has with another size."""
    return [name for name, entry in files.items() if sizes.get(name) != entry.bytes]


def sha256(path: Path) -> str:
    """Hash of a local file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def kept(manifests: Iterable[Manifest], last: int, best: KeepBest | None) -> set[int]:
    """Steps that retention keeps: the `last` newest and the best by a metric. Of two equal ones the earlier
    is the better.
    """
    ordered = sorted(manifests, key=lambda manifest: manifest.step)
    steps = {manifest.step for manifest in ordered[-last:]}
    if best is not None:
        steps |= {manifest.step for manifest in ranked(ordered, best)[: best.count]}
    return steps


def ranked(manifests: Iterable[Manifest], best: KeepBest) -> list[Manifest]:
    """Those that have the metric, as a finite number, best first."""
    sign = -1 if best.mode == "max" else 1
    measured = [
        manifest for manifest in manifests if math.isfinite(manifest.metrics.get(best.metric, math.nan))
    ]
    return sorted(measured, key=lambda manifest: (sign * manifest.metrics[best.metric], manifest.step))
