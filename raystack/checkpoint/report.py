"""Reports on checkpoints: what the manifest says, and which files are missing or damaged."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from raystack.checkpoint.locate import locate
from raystack.checkpoint.manifest import Manifest
from raystack.checkpoint.model import WEIGHTS
from raystack.checkpoint.store import MODEL, CheckpointStore
from raystack.errors import Problem

Reading = Callable[[int], AbstractContextManager[Callable[[int], None]]]
"""Opens a progress bar for a number of bytes; call the result with the bytes of each piece."""


@dataclass(frozen=True)
class Report:
    """State of one checkpoint folder."""

    KEYS: ClassVar[tuple[str, ...]] = (
        "step",
        "url",
        "samples",
        "epoch",
        "workers",
        "strategy",
        "bytes",
        "metrics",
        "weights",
        "state",
        "problems",
    )
    """Keys of `as_dict` for a checkpoint with a manifest."""

    step: int
    url: str
    manifest: Manifest | None
    """None if it is missing or cannot be read; `problems` says why."""
    problems: tuple[Problem, ...]

    @property
    def state(self) -> Literal["ok", "damaged", "no manifest"]:
        """State of the folder; `no manifest` means unfinished, or still being written."""
        if not self.problems:
            return "ok"
        return "no manifest" if self.manifest is None and self.problems[0].where == self.url else "damaged"

    @property
    def bytes(self) -> int:
        """Total size of all files."""
        return sum(entry.bytes for entry in self.manifest.files.values()) if self.manifest else 0

    @property
    def weights(self) -> bool:
        """Whether it has full weights, and so can be served as it is."""
        return self.manifest is not None and f"{MODEL}/{WEIGHTS}" in self.manifest.files

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON values; without a manifest, only step, url, state and problems."""
        ends = {"state": self.state, "problems": [str(problem) for problem in self.problems]}
        if self.manifest is None:
            return {"step": self.step, "url": self.url, **ends}
        return {
            "step": self.step,
            "url": self.url,
            "samples": self.manifest.samples,
            "epoch": self.manifest.samples / self.manifest.dataset_length
            if self.manifest.dataset_length
            else None,
            "workers": self.manifest.world_size,
            "strategy": self.manifest.strategy,
            "bytes": self.bytes,
            "metrics": dict(self.manifest.metrics),
            "weights": self.weights,
            **ends,
        }


def list_checkpoints(url: str) -> list[Report]:
    """Report on all checkpoints at `url`, as `locate` takes it, from manifests and file sizes only."""
    store, steps = locate(url)
    return [summarize(store, step) for step in steps]


def verify_checkpoints(url: str, reading: Reading) -> list[Report]:
    """Report on all checkpoints at `url` after reading every file; `reading` shows the progress."""
    store, steps = locate(url)
    with reading(sum(summarize(store, step).bytes for step in steps)) as progress:
        return [verify(store, step, progress) for step in steps]


def summarize(store: CheckpointStore, step: int) -> Report:
    """Report on one checkpoint from its manifest and a listing of its files."""
    manifest = store.read(step)
    if isinstance(manifest, Problem):
        return Report(step, store.folder(step), None, (manifest,))
    rule = "this file of the checkpoint is missing or has another size"
    missing = store.missing_files(manifest)
    problems = tuple(Problem(f"{store.folder(step)}/{name}", rule=rule) for name in missing)
    return Report(step, store.folder(step), manifest, problems)


def verify(store: CheckpointStore, step: int, progress: Callable[[int], None]) -> Report:
    """Report on one checkpoint with all its damaged files, from their contents.

    Calls `progress` with the bytes of each file that was checked.
    """
    manifest = store.read(step)
    if isinstance(manifest, Problem):
        return Report(step, store.folder(step), None, (manifest,))
    problems = []
    for name in sorted(manifest.files):
        problem = store.check(manifest, name)
        problems += [problem] if problem is not None else []
        progress(manifest.files[name].bytes)
    return Report(step, store.folder(step), manifest, tuple(problems))
