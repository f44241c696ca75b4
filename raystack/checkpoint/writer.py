"""A checkpoint in the making, as one of its workers sees it. In: files in a folder. Out: a published
checkpoint, or nothing.

Every worker has its own Draft of the same step and attempt; nothing here is collective. Each writes below
`folder`, hashes and sends what it wrote; rank 0 collects the entries of all, and publishes.
"""

import os
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from raystack.checkpoint.fence import Fence
from raystack.checkpoint.manifest import NAME, STATE, FileEntry, Manifest, absent, describe_files, sha256
from raystack.checkpoint.scratch import Scratch, remove
from raystack.errors import ConfigError, Problem
from raystack.plan.naming import step_name
from raystack.storage import Storage

POLL_S = 0.5
SETTLE_S = 5.0
"""A network file system may show another machine's new file some seconds late."""


class CheckpointWriter:
    """One worker's part of a checkpoint.

    Files below `state/<attempt>/` are written by any worker. All others (config.yaml, model/) are rank 0's:
    they have the same path in a published checkpoint of the same step, which stays whole until this one
    replaces it.
    """

    folder: Path
    """Where this worker writes; it exists. Local storage: one folder for all workers. Remote: this worker's
    own.
    """

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
        """Size and SHA-256 of the files at `names`, relative to `folder`; of all files in it where that is
        left out.

        In a local storage the folder has every worker's files: give the names of one's own.
        """
        if names is None:
            return describe_files(self.folder)
        return {
            name: FileEntry(sha256(self.folder / name), (self.folder / name).stat().st_size) for name in names
        }

    def send(self, files: Mapping[str, FileEntry], stop: threading.Event) -> None:
        """Upload this worker's `files`, trying again while the store is away; in a local storage they are
        there already.

        Raises TrainingError where `stop` was set before the last file was sent, ConfigError where the store
        refuses.
        """
        if not self._storage.local:
            storage = self._storage.until(stop)
            for name in files:
                if name.startswith(f"{STATE}/"):
                    storage.put(self.folder / name, f"{self._step}/{name}")
        self._sent = True

    def publish(self, manifest: Manifest, stop: threading.Event) -> None:
        """Rank 0, after `send`: wait until all workers' files are there, and make them a checkpoint by
        writing its manifest.

        `manifest.files` has the entries of all workers. A published checkpoint of the same step is replaced.
        Raises TrainingError where `stop` was set before or another driver has taken the run, ConfigError
        where a local storage lacks another worker's file.
        """
        if self._storage.local:
            self._publish_folder(manifest, stop)
        else:
            self._publish_objects(manifest, stop)

    def drop(self) -> None:
        """Delete what lies in `folder`, unless it is part of a local checkpoint: sent, and published or
        waiting for it.
        """
        if self._scratch is not None:
            self._scratch.remove()
        elif not self._sent:
            remove(self.folder)

    def _publish_folder(self, manifest: Manifest, stop: threading.Event) -> None:
        deadline = time.monotonic() + SETTLE_S
        while missing := absent(manifest.files, self._storage.files(self.folder.name)):
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
        if target.exists():
            aside = target.with_name(f"{self.folder.name}-replaced")
            os.replace(target, aside)
            os.replace(self.folder, target)
            remove(aside)
        else:
            os.replace(self.folder, target)

    def _publish_objects(self, manifest: Manifest, stop: threading.Event) -> None:
        storage, step = self._storage.until(stop), self._step
        state = {name: entry for name, entry in manifest.files.items() if name.startswith(f"{STATE}/")}
        while absent(state, storage.files(step)):
            stop.wait(POLL_S)
        self._check(stop)
        storage.delete(f"{step}/{NAME}")
        for name in manifest.files.keys() - state.keys():
            storage.put(self.folder / name, f"{step}/{name}")
        self._check(stop)  # once more: a store that was away has been waited for
        storage.write(f"{step}/{NAME}", manifest.to_json())
        for name in storage.files(step).keys() - manifest.files.keys() - {NAME}:
            storage.delete(f"{step}/{name}")

    def _check(self, stop: threading.Event) -> None:
        if self._fence is not None:
            self._fence.check(stop)


def draft_name(step: int, attempt: str) -> str:
    """Name of the hidden folder, beside its destination, in which all workers write to a local storage."""
    return f".{step_name(step)}-{attempt}"
