"""The checkpoints of one run, at a local path or any fsspec URL.

<url>/step-0000000100/
  manifest.json      written last: without it there is no checkpoint
  config.yaml        the resolved config
  state/<attempt>/   what training needs to go on, written by all workers
  model/             what serving needs
"""

import copy
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from raystack.checkpoint import manifest as manifests
from raystack.checkpoint.fence import Fence
from raystack.checkpoint.manifest import NAME, Manifest, describe_files
from raystack.checkpoint.scratch import scratch
from raystack.checkpoint.writer import CheckpointWriter
from raystack.config.training import KeepBest
from raystack.errors import Problem, TrainingError
from raystack.plan.naming import step_name
from raystack.storage import Storage

MODEL, CONFIG = "model", "config.yaml"
_STEP, _DRAFT = re.compile(r"step-(\d+)"), re.compile(r"\.step-(\d+)-")


@dataclass(frozen=True)
class Found:
    """A checkpoint whose every file is what its manifest says, and the damaged ones that were passed over for
    it.
    """

    manifest: Manifest | None
    """None: there is no good checkpoint."""
    skipped: tuple[Problem, ...] = ()
    """Newest first."""


class CheckpointStore:
    """Writes, finds, checks and prunes the checkpoints below `url`.

    Raises ConfigError where the store refuses (no permission, no such bucket), TrainingError where it stays
    away. With a `fence`, publishing and pruning raise TrainingError too once another driver has taken the
    run.
    """

    def __init__(self, url: str, fence: Fence | None = None) -> None:
        self.url = url.rstrip("/")
        self._storage = Storage(url)
        self._fence = fence
        self._stop: threading.Event | None = None

    @property
    def local(self) -> bool:
        """Whether it lies on a disk, so that publishing is a rename and no upload."""
        return self._storage.local

    def until(self, stop: threading.Event) -> "CheckpointStore":
        """The same store, which is waited for while it is away until `stop` is set, and not only for a
        minute.
        """
        patient = copy.copy(self)
        patient._storage, patient._stop = self._storage.until(stop), stop
        return patient

    def folder(self, step: int) -> str:
        """URL of the checkpoint after `step` steps."""
        return f"{self.url}/{step_name(step)}"

    def writer(self, step: int, attempt: str) -> CheckpointWriter:
        """A checkpoint to write; every worker calls it with the same arguments. `attempt` is a part of file
        names.
        """
        return CheckpointWriter(self._storage, step, attempt, self._fence)

    def add(self, step: int, part: str, fill: Callable[[Path], None]) -> Manifest:
        """Put further files into a published checkpoint, below its folder `part`; the checkpoint is whole all
        the time.

        `fill` writes them into an empty local folder. Returns the new manifest. Raises TrainingError where
        there is none.
        """
        manifest = self.read(step)
        if isinstance(manifest, Problem):
            raise TrainingError(manifest)
        with scratch() as folder:
            fill(folder)
            added = describe_files(folder)
            for name in added:
                self._storage.put(folder / name, f"{step_name(step)}/{part}/{name}")
        files = {**manifest.files, **{f"{part}/{name}": entry for name, entry in added.items()}}
        manifest = replace(manifest, files=files)
        self._check()
        self._storage.write(f"{step_name(step)}/{NAME}", manifest.to_json())
        return manifest

    def _check(self) -> None:
        if self._fence is not None:
            self._fence.check(self._stop)

    def steps(self) -> list[int]:
        """Steps that have a folder, in order, whatever is in it."""
        return sorted(int(match[1]) for name in self._storage.names() if (match := _STEP.fullmatch(name)))

    def read(self, step: int) -> Manifest | Problem:
        """The manifest of a step, or why there is none to be read; the files beside it are not checked."""
        try:
            return Manifest.from_json(self._storage.read(f"{step_name(step)}/{NAME}"))
        except FileNotFoundError:
            return Problem(self.folder(step), rule="this checkpoint has no manifest: it was not finished")
        except ValueError as error:
            return Problem(f"{self.folder(step)}/{NAME}", rule=str(error))

    def manifests(self) -> list[Manifest]:
        """Manifests that can be read, oldest first; the files beside them are not checked."""
        return [manifest for manifest in self.candidates() if isinstance(manifest, Manifest)][::-1]

    def candidates(self, steps: Iterable[int] | None = None) -> Iterator[Manifest | Problem]:
        """Folders of checkpoints, all or those of `steps`, newest first: the manifest, or why there is none
        to be read.
        """
        return (self.read(step) for step in sorted(self.steps() if steps is None else steps, reverse=True))

    def latest_good(self, steps: Iterable[int] | None = None) -> Found:
        """The newest checkpoint, of `steps` where they are given, whose files all have the size and hash of
        its manifest.
        """
        skipped: list[Problem] = []
        for manifest in self.candidates(steps):
            problem = self.damaged(manifest) if isinstance(manifest, Manifest) else manifest
            if problem is None:
                assert isinstance(manifest, Manifest)
                return Found(manifest, tuple(skipped))
            skipped.append(problem)
        return Found(None, tuple(skipped))

    def damaged(self, manifest: Manifest, part: int = 0, parts: int = 1) -> Problem | None:
        """The first file that is not what the manifest says. One of `parts` workers checks every parts-th
        file, from `part` on.
        """
        mine = sorted(manifest.files)[part::parts]
        return next((problem for name in mine if (problem := self.check(manifest, name)) is not None), None)

    def check(self, manifest: Manifest, name: str) -> Problem | None:
        """Read one file of a checkpoint, as a stream, and compare it with its manifest."""
        entry, where = manifest.files[name], f"{self.folder(manifest.step)}/{name}"
        try:
            digest, size = self._storage.digest(f"{step_name(manifest.step)}/{name}")
        except FileNotFoundError:
            return Problem(where, rule="this file of the checkpoint is missing")
        if size != entry.bytes:
            return Problem(where, rule=f"this file should have {entry.bytes} bytes", got=f"{size}")
        if digest != entry.sha256:
            return Problem(
                where, rule="the SHA-256 of this file is not the one in the manifest: it is damaged"
            )
        return None

    def absent(self, manifest: Manifest) -> list[str]:
        """Files that are missing or have another size, from a listing: a quick look, where `damaged` reads
        every byte.
        """
        return manifests.absent(manifest.files, self._storage.files(step_name(manifest.step)))

    def prune(self, last: int, best: KeepBest | None, upto: int | None = None) -> list[int]:
        """Delete what retention does not keep, and what killed attempts left: drafts and folders without a
        manifest.

        `upto` is the step that was just published: checkpoints after it are of a past that was given up,
        because they were damaged. Leftovers newer than the newest checkpoint stay, because they may be in the
        making. Returns the steps that had a folder.
        """
        self._check()
        every = self.manifests()
        existing = [manifest for manifest in every if upto is None or manifest.step <= upto]
        if not existing:
            return []
        keep = manifests.kept(existing, last, best)
        gone = {manifest.step for manifest in every if manifest.step not in keep}
        newest, readable = existing[-1].step, {manifest.step for manifest in every}
        gone |= {
            step
            for step in self.steps()
            if step < newest and step not in readable and self._is_unfinished(step)
        }
        for step in sorted(gone):
            # The manifest goes first, so that no half of a checkpoint looks whole.
            self._storage.delete(f"{step_name(step)}/{NAME}")
            self._storage.delete(step_name(step))
        for name in self._storage.names():
            if (writer := _DRAFT.match(name)) and int(writer[1]) < newest:
                self._storage.delete(name)
        return sorted(gone)

    @contextmanager
    def fetch(self, step: int, part: str = "") -> Iterator[Path]:
        """A local folder with the checkpoint, or with one `part` of it; downloaded for the time of the block
        if it is remote.
        """
        name = f"{step_name(step)}/{part}".rstrip("/")
        if self._storage.local:
            yield Path(self._storage.path(name))
            return
        with scratch() as folder:
            self._storage.get(name, folder)
            yield folder

    def _is_unfinished(self, step: int) -> bool:
        return NAME not in self._storage.names(step_name(step))
