"""What is told of a checkpoint: what its manifest says, and what is wrong with its files, at a glance or
after reading them all.
"""

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
"""Shows, for the time of a block, how much of so many bytes is read."""


@dataclass(frozen=True)
class Report:
    """One folder of a checkpoint."""

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
    """Of `as_dict`, where there is a manifest."""

    step: int
    url: str
    manifest: Manifest | None
    """None: it is missing or cannot be read; `problems` says why."""
    problems: tuple[Problem, ...]

    @property
    def state(self) -> Literal["ok", "damaged", "no manifest"]:
        """`no manifest`: it was not finished, or is in the making."""
        if not self.problems:
            return "ok"
        return "no manifest" if self.manifest is None and self.problems[0].where == self.url else "damaged"

    @property
    def bytes(self) -> int:
        """Size of all files together."""
        return sum(entry.bytes for entry in self.manifest.files.values()) if self.manifest else 0

    @property
    def weights(self) -> bool:
        """Whether it can be served as it is."""
        return self.manifest is not None and f"{MODEL}/{WEIGHTS}" in self.manifest.files

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; what only a manifest knows is left out where there is none."""
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


def glances(url: str) -> list[Report]:
    """Every checkpoint at `url` (`locate` says what that may be), at a glance."""
    store, steps = locate(url)
    return [glance(store, step) for step in steps]


def verifications(url: str, reading: Reading) -> list[Report]:
    """Every checkpoint at `url`, read to its end. `reading` gets the bytes of all and shows what is read."""
    store, steps = locate(url)
    with reading(sum(glance(store, step).bytes for step in steps)) as progress:
        return [verify(store, step, progress) for step in steps]


def glance(store: CheckpointStore, step: int) -> Report:
    """From the manifest and a listing of the files."""
    found = store.read(step)
    if isinstance(found, Problem):
        return Report(step, store.folder(step), None, (found,))
    rule = "this file of the checkpoint is missing or has another size"
    problems = tuple(Problem(f"{store.folder(step)}/{name}", rule=rule) for name in store.absent(found))
    return Report(step, store.folder(step), found, problems)


def verify(store: CheckpointStore, step: int, progress: Callable[[int], None]) -> Report:
    """From every byte; all damaged files are told. `progress` is called with the bytes of each file that was
    checked.
    """
    found = store.read(step)
    if isinstance(found, Problem):
        return Report(step, store.folder(step), None, (found,))
    problems = []
    for name in sorted(found.files):
        problem = store.check(found, name)
        problems += [problem] if problem is not None else []
        progress(found.files[name].bytes)
    return Report(step, store.folder(step), found, tuple(problems))
