"""Write one checkpoint with several workers. In: files in a folder. Out: a published checkpoint, or nothing.

Every worker has a CheckpointWriter of the same step and attempt, and none of the methods is collective. Each
worker writes below `folder`, then hashes and sends its files; rank 0 collects all entries and publishes.
"""

import os
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from raystack.checkpoint.fence import Fence
from raystack.checkpoint.manifest import (
    NAME,
    STATE,
    FileEntry,
    Manifest,
    describe_files,
    missing_files,
    sha256,
)
from raystack.checkpoint.scratch import Scratch, remove
from raystack.errors import ConfigError, Problem
from raystack.plan.naming import step_name
from raystack.storage import Storage

POLL_S = 0.5
SETTLE_S = 5.0
"""NFS caches directory entries, so another machine's new file may appear some seconds late."""


class CheckpointWriter:
    """One worker's part of a checkpoint.

    All workers write files below `state/<attempt>/`; only rank 0 writes the others (config.yaml, model/).
    """

    # Rank 0's files have the same paths in every attempt at a step. `send` leaves them to `publish`, so that
    # a published checkpoint of the same step stays valid until this one replaces it.

    folder: Path
    """Existing folder to write into: on local storage one for all workers, otherwise this worker's own."""

    def __init__(self, storage: Storage, step: int, attempt: str, fence: Fence | None = None) -> None:
        self._storage, self._fence = storage, fence
        self._step = step_name(step)
        self._sent = False
        self._scratch = None if storage.local else Scratch()
        if self._scratch is None:
            self.folder = storage.make(draft_name(step, attempt))
        else:
            self.folder = self._scratch.folder

    def entries(self, names: Iterable[str] | None = None) -> dict[str, FileEntry]:
        """Return size and SHA-256 of the files at `names`, relative to `folder`; by default of all files.

        On local storage the folder has the files of all workers: pass the names of this worker's.
        """
        if names is None:
            return describe_files(self.folder)
        return {
            name: FileEntry(sha256(self.folder / name), (self.folder / name).stat().st_size) for name in names
        }

    def send(self, files: Mapping[str, FileEntry], stop: threading.Event) -> None:
        """Upload this worker's `files`, with retries until `stop` is set. Does nothing on local storage.

        Raises TrainingError if `stop` was set before the last file was sent, ConfigError if the store rejects
        them.
        """
        if not self._storage.local:
            storage = self._storage.until(stop)
            for name in files:
                if name.startswith(f"{STATE}/"):
                    storage.put(self.folder / name, f"{self._step}/{name}")
        self._sent = True

    def publish(self, manifest: Manifest, stop: threading.Event) -> None:
        """Publish the checkpoint, on rank 0 and after `send`, when the files of all workers have arrived.

        `manifest.files` has the entries of all workers. Replaces a published checkpoint of the same step.
        Raises TrainingError if `stop` was set before, SupersededError if another driver has taken the run,
        and ConfigError if a local storage lacks another worker's file.
        """
        if self._storage.local:
            self._publish_folder(manifest, stop)
        else:
            self._publish_objects(manifest, stop)

    def drop(self) -> None:
        """Delete `folder`, unless its files are part of a local checkpoint: sent, or published."""
        if self._scratch is not None:
            self._scratch.remove()
        elif not self._sent:
            remove(self.folder)

    def _publish_folder(self, manifest: Manifest, stop: threading.Event) -> None:
        deadline = time.monotonic() + SETTLE_S
        while missing := missing_files(manifest.files, self._storage.files(self.folder.name)):
            if time.monotonic() > deadline:
                raise ConfigError(
                    Problem(
                        "experiment.storage",
                        rule=(
                            f"this storage is not shared: {missing[0]}, which another worker wrote, is not"
                            " there for rank 0"
                        ),
                        got=self._storage.url,
                        remedy="give a folder that all nodes share, or an s3:// URL",
                    )
                )
            time.sleep(POLL_S)
        self._check(stop)
        self._storage.write(f"{self.folder.name}/{NAME}", manifest.to_json())
        target = Path(self._storage.path(self._step))
        if os.path.lexists(target):
            # A rename replaces no folder that has files in it, and nothing that is no folder.
            aside = target.with_name(f"{self.folder.name}-replaced")
            os.replace(target, aside)
            os.replace(self.folder, target)
            self._storage.delete(aside.name)
        else:
            os.replace(self.folder, target)

    def _publish_objects(self, manifest: Manifest, stop: threading.Event) -> None:
        storage, step = self._storage.until(stop), self._step
        state = {name: entry for name, entry in manifest.files.items() if name.startswith(f"{STATE}/")}
        while missing_files(state, storage.files(step)):
            stop.wait(POLL_S)
        self._check(stop)
        # The old manifest goes before the files that it lists change, and the new one comes after all files.
        storage.delete(f"{step}/{NAME}")
        for name in manifest.files.keys() - state.keys():
            storage.put(self.folder / name, f"{step}/{name}")
        self._check(stop)  # again: retries may have taken long enough for another driver to take the run
        storage.write(f"{step}/{NAME}", manifest.to_json())
        for name in storage.files(step).keys() - manifest.files.keys() - {NAME}:
            storage.delete(f"{step}/{name}")

    def _check(self, stop: threading.Event) -> None:
        if self._fence is not None:
            self._fence.check(stop)


def draft_name(step: int, attempt: str) -> str:
    """Return the name of the hidden folder in which all workers write a checkpoint to local storage."""
    return f".{step_name(step)}-{attempt}"
