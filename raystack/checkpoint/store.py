"""The checkpoints of one run, at a local path or any fsspec URL.

<url>/step-0000000100/
  manifest.json      written last: without it there is no checkpoint
  config.yaml        the resolved config
  state/<attempt>/   the training state, written by all workers
  model/             what serving needs
"""

import copy
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from raystack.checkpoint import manifest as manifests
from raystack.checkpoint.fence import Fence
from raystack.checkpoint.manifest import NAME, Manifest, describe_files
from raystack.checkpoint.scratch import scratch
from raystack.checkpoint.writer import CheckpointWriter
from raystack.config.training import KeepBest
from raystack.errors import ConfigError, Problem, TrainingError
from raystack.plan.naming import step_name
from raystack.refusals import refusals
from raystack.storage import Storage

Result = TypeVar("Result")

MODEL, CONFIG = "model", "config.yaml"
_UNREADABLE = "this file of the checkpoint cannot be read"
_STEP, _DRAFT = re.compile(r"step-(\d+)"), re.compile(r"\.step-(\d+)-")


@dataclass(frozen=True)
class Found:
    """The newest undamaged checkpoint, and the newer ones that were skipped."""

    manifest: Manifest | None
    """None if there is no undamaged checkpoint."""
    skipped: tuple[Problem, ...] = ()
    """Why newer checkpoints were skipped, newest first."""


class CheckpointStore:
    """The checkpoints below `url`: writes, finds, checks and prunes them.

    Raises ConfigError if the store rejects a request (no permission, no such bucket), TrainingError if it
    stays unavailable. With a `fence`, publishing and pruning raise SupersededError once another driver has
    taken the run.
    """

    def __init__(self, url: str, fence: Fence | None = None) -> None:
        self.url = url.rstrip("/")
        self._storage = Storage(url)
        self._fence = fence
        self._stop: threading.Event | None = None

    @property
    def local(self) -> bool:
        """Whether it is on a file system, so that publishing is a rename and not an upload."""
        return self._storage.local

    def until(self, stop: threading.Event) -> "CheckpointStore":
        """Return this store with retries that go on until `stop` is set, not only for a minute."""
        patient = copy.copy(self)
        patient._storage, patient._stop = self._storage.until(stop), stop
        return patient

    def folder(self, step: int) -> str:
        """Return the URL of the checkpoint after `step` steps."""
        return f"{self.url}/{step_name(step)}"

    def writer(self, step: int, attempt: str) -> CheckpointWriter:
        """Return this worker's writer of a new checkpoint; all workers call it with the same arguments.

        `attempt` becomes a part of file names.
        """
        return CheckpointWriter(self._storage, step, attempt, self._fence)

    def add(
        self, step: int, part: str, fill: Callable[[Path], None], metrics: Mapping[str, float] | None = None
    ) -> Manifest:
        """Add files to a published checkpoint, below its folder `part`, and return the new manifest.

        With `metrics`, the manifest has these from now on.
        `fill` writes them into an empty local folder. Raises TrainingError if the checkpoint has no manifest.
        """
        manifest = self.read(step)
        if isinstance(manifest, Problem):
            raise TrainingError(manifest)
        with scratch() as folder:
            with refusals(f"the export of step {step}", str(folder), "TMPDIR"):
                fill(folder)
            added = describe_files(folder)
            for name in added:
                self._storage.put(folder / name, f"{step_name(step)}/{part}/{name}")
        files = {**manifest.files, **{f"{part}/{name}": entry for name, entry in added.items()}}
        manifest = replace(manifest, files=files, metrics=manifest.metrics if metrics is None else metrics)
        # The manifest that lists the new files comes after them, so the checkpoint is valid at every moment.
        self._check()
        self._storage.write(f"{step_name(step)}/{NAME}", manifest.to_json())
        return manifest

    def _check(self) -> None:
        if self._fence is not None:
            self._fence.check(self._stop)

    def steps(self) -> list[int]:
        """Return the steps that have a folder, in order, whatever is in it."""
        return sorted(int(match[1]) for name in self._storage.names() if (match := _STEP.fullmatch(name)))

    def read(self, step: int) -> Manifest | Problem:
        """Return the manifest of a step, or why it cannot be read. Its files are not checked."""
        name = f"{step_name(step)}/{NAME}"
        try:
            manifest = Manifest.from_json(self._whole(name, self._storage.read))
        except FileNotFoundError:
            return Problem(self.folder(step), rule="this checkpoint has no manifest: it was not finished")
        except OSError as error:
            return Problem(f"{self.url}/{name}", rule=_UNREADABLE, got=error.strerror or str(error))
        except ValueError as error:
            return Problem(f"{self.url}/{name}", rule=str(error))
        if manifest.step != step:
            return Problem(
                f"{self.url}/{name}", rule="this manifest is another step's", got=f"{manifest.step}"
            )
        return manifest

    def _whole(self, name: str, read: Callable[[str], Result]) -> Result:
        """Read a file. Raises OSError if a local one cannot be read: then that checkpoint is damaged."""
        self._storage.check_file(name)
        try:
            return read(name)
        except ConfigError as error:
            # An object store that rejects a request rejects all, so that stays an error of the config.
            if self.local and isinstance(error.__cause__, OSError):
                raise error.__cause__ from None
            raise

    def manifests(self) -> list[Manifest]:
        """Return all manifests that can be read, oldest first. Their files are not checked."""
        return [manifest for manifest in self.candidates() if isinstance(manifest, Manifest)][::-1]

    def newest(self) -> int | None:
        """Return the step of the newest checkpoint whose files have their sizes; their contents are not read.

        None if there is none.
        """
        return next(
            (
                manifest.step
                for manifest in self.candidates()
                if isinstance(manifest, Manifest) and not self.missing_files(manifest)
            ),
            None,
        )

    def candidates(self, steps: Iterable[int] | None = None) -> Iterator[Manifest | Problem]:
        """Yield the manifests of `steps`, by default of all, newest first; or why one cannot be read."""
        return (self.read(step) for step in sorted(self.steps() if steps is None else steps, reverse=True))

    def latest_good(self, steps: Iterable[int] | None = None) -> Found:
        """Find the newest checkpoint of `steps`, by default of all, whose files match its manifest.

        Reads every byte of the checkpoints that it tries.
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
        """Return the first file that does not match its manifest, or None.

        Workers can share the reading: worker `part` of `parts` checks every parts-th file.
        """
        mine = sorted(manifest.files)[part::parts]
        return next((problem for name in mine if (problem := self.check(manifest, name)) is not None), None)

    def check(self, manifest: Manifest, name: str) -> Problem | None:
        """Read one file of a checkpoint, and return how it differs from its manifest, or None."""
        entry, where = manifest.files[name], f"{self.folder(manifest.step)}/{name}"
        try:
            digest, size = self._whole(f"{step_name(manifest.step)}/{name}", self._storage.digest)
        except FileNotFoundError:
            return Problem(where, rule="this file of the checkpoint is missing")
        except OSError as error:
            return Problem(where, rule=_UNREADABLE, got=error.strerror or str(error))
        if size != entry.bytes:
            return Problem(where, rule=f"this file should have {entry.bytes} bytes", got=f"{size}")
        if digest != entry.sha256:
            return Problem(
                where, rule="the SHA-256 of this file is not the one in the manifest: it is damaged"
            )
        return None

    def missing_files(self, manifest: Manifest) -> list[str]:
        """Return the files that are missing or have another size; unlike `damaged` it reads no contents."""
        return manifests.missing_files(manifest.files, self._storage.files(step_name(manifest.step)))

    def prune(self, last: int, best: KeepBest | None, upto: int | None = None) -> list[int]:
        """Delete checkpoints that retention does not keep, and what killed attempts left; return the steps.

        `upto` is the step that was just published; all later checkpoints are deleted.
        """
        self._check()
        published = self.manifests()
        # A later checkpoint was damaged, and the run resumed from before it: this run will write it anew.
        current = [manifest for manifest in published if upto is None or manifest.step <= upto]
        if not current:
            return []
        retained = manifests.retained_steps(current, last, best)
        deleted = {manifest.step for manifest in published if manifest.step not in retained}
        newest, readable = current[-1].step, {manifest.step for manifest in published}
        # Unfinished folders and drafts newer than the newest checkpoint stay: one may be in progress.
        deleted |= {
            step
            for step in self.steps()
            if step < newest and step not in readable and self._is_unfinished(step)
        }
        for step in sorted(deleted):
            # The manifest goes first, so that a half-deleted checkpoint does not look valid.
            self._storage.delete(f"{step_name(step)}/{NAME}")
            self._storage.delete(step_name(step))
        for name in self._storage.unfinished():
            if (draft := _DRAFT.match(name)) and int(draft[1]) < newest:
                self._storage.delete(name)
        return sorted(deleted)

    @contextmanager
    def fetch(self, step: int, part: str = "") -> Iterator[Path]:
        """Provide a local folder with the checkpoint, or one `part` of it, for the time of the block.

        A remote checkpoint is downloaded.
        """
        name = f"{step_name(step)}/{part}".rstrip("/")
        if self._storage.local:
            yield Path(self._storage.path(name))
            return
        with scratch() as folder:
            self._storage.get(name, folder)
            yield folder

    def _is_unfinished(self, step: int) -> bool:
        try:
            return NAME not in self._storage.names(step_name(step))
        except ConfigError:
            return False  # nobody knows what is in a folder that may not be read
