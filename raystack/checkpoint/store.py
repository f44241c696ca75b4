"""The checkpoints of one run, at a local path or any fsspec URL.

<url>/step-0000000100/
  manifest.json    written last: without it there is no checkpoint
  config.yaml      the resolved config
  state/           what training needs to go on
  model/           what serving needs
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import fsspec

from raystack.checkpoint import manifest as manifests
from raystack.checkpoint.manifest import Manifest, describe_files
from raystack.config.training import KeepBest
from raystack.errors import Problem
from raystack.plan.naming import step_name

MODEL, STATE, CONFIG = "model", "state", "config.yaml"


@dataclass(frozen=True)
class Found:
    """A checkpoint whose every file is what its manifest says, and the damaged ones that were passed over for it."""

    manifest: Manifest | None
    """None: there is no good checkpoint."""
    skipped: tuple[Problem, ...] = ()


class Store:
    """Writes, finds, checks and prunes the checkpoints below `url`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._fs, self._root = fsspec.core.url_to_fs(url)
        self._local = "file" in _protocols(self._fs)

    def folder(self, step: int) -> str:
        """URL of the checkpoint after `step` steps."""
        return f"{self.url}/{step_name(step)}"

    def save(self, manifest: Manifest, fill: Callable[[Path], None]) -> Manifest:
        """Let `fill` write a checkpoint's files into an empty folder, hash them, and publish them with the manifest last.

        A checkpoint of the same step, damaged or left by an earlier attempt, is replaced. Returns the manifest as written.
        """
        with self._staging(manifest.step) as folder:
            fill(folder)
            manifest = replace(manifest, files=describe_files(folder))
            self._publish(folder, manifest)
        return manifest

    def manifests(self) -> list[Manifest]:
        """Manifests that can be read, oldest first; the files beside them are not checked."""
        return [manifest for step in self._steps() if isinstance(manifest := self._read(step), Manifest)]

    def latest_good(self) -> Found:
        """The newest checkpoint whose files all have the size and hash of its manifest."""
        skipped: list[Problem] = []
        for step in reversed(self._steps()):
            manifest = self._read(step)
            problem = self._damage(manifest) if isinstance(manifest, Manifest) else manifest
            if problem is None:
                assert isinstance(manifest, Manifest)
                return Found(manifest, tuple(skipped))
            skipped.append(problem)
        return Found(None, tuple(skipped))

    def prune(self, last: int, best: KeepBest | None) -> list[int]:
        """Delete what retention does not keep; the manifest goes first, so that no half of a checkpoint looks whole."""
        existing = self.manifests()
        keep = manifests.kept(existing, last, best)
        gone = [manifest.step for manifest in existing if manifest.step not in keep]
        for step in gone:
            self._delete(step)
        return gone

    @contextmanager
    def fetch(self, step: int, part: str = "") -> Iterator[Path]:
        """A local folder with the checkpoint, or with one `part` of it; downloaded for the time of the block if it is remote."""
        path = f"{self._root}/{step_name(step)}" + (f"/{part}" if part else "")
        if self._local:
            yield Path(path)
            return
        with tempfile.TemporaryDirectory(prefix="raystack-") as folder:
            self._fs.get(path, f"{folder}/fetched", recursive=True)
            yield Path(folder) / "fetched"

    @contextmanager
    def _staging(self, step: int) -> Iterator[Path]:
        """An empty local folder; beside its destination where that is local, so that publishing is one rename."""
        if self._local:
            os.makedirs(self._root, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{step_name(step)}-", dir=self._root if self._local else None) as folder:
            inner = Path(folder) / "checkpoint"
            inner.mkdir()
            yield inner

    def _publish(self, folder: Path, manifest: Manifest) -> None:
        target = f"{self._root}/{step_name(manifest.step)}"
        if self._fs.exists(target):
            self._delete(manifest.step)
        path = folder / manifests.NAME
        if self._local:
            with path.open("w", encoding="utf-8") as file:
                file.write(manifest.to_json())
                file.flush()
                os.fsync(file.fileno())
            os.replace(folder, target)
            return
        self._fs.put(f"{folder}/", target, recursive=True)
        path.write_text(manifest.to_json(), encoding="utf-8")
        self._fs.put_file(str(path), f"{target}/{manifests.NAME}")

    def _steps(self) -> list[int]:
        if not self._fs.isdir(self._root):
            return []
        names = [os.path.basename(path.rstrip("/")) for path in self._fs.ls(self._root, detail=False)]
        return sorted(int(name.removeprefix("step-")) for name in names if name.startswith("step-") and name[5:].isdigit())

    def _read(self, step: int) -> Manifest | Problem:
        try:
            with self._fs.open(f"{self._root}/{step_name(step)}/{manifests.NAME}", "r", encoding="utf-8") as file:
                return Manifest.from_json(file.read())
        except FileNotFoundError:
            return Problem(self.folder(step), rule="this checkpoint has no manifest: it was not finished")
        except ValueError as error:
            return Problem(f"{self.folder(step)}/{manifests.NAME}", rule=str(error))

    def _damage(self, manifest: Manifest) -> Problem | None:
        with self.fetch(manifest.step) as folder:
            for name, entry in manifest.files.items():
                path, where = folder / name, f"{self.folder(manifest.step)}/{name}"
                if not path.is_file():
                    return Problem(where, rule="this file of the checkpoint is missing")
                if path.stat().st_size != entry.bytes:
                    return Problem(where, rule=f"this file should have {entry.bytes} bytes", got=f"{path.stat().st_size}")
                if manifests.sha256(path) != entry.sha256:
                    return Problem(where, rule="the SHA-256 of this file is not the one in the manifest: it is damaged")
        return None

    def _delete(self, step: int) -> None:
        target = f"{self._root}/{step_name(step)}"
        if self._fs.exists(f"{target}/{manifests.NAME}"):
            self._fs.rm_file(f"{target}/{manifests.NAME}")
        if self._local:
            shutil.rmtree(target)
        else:
            self._fs.rm(target, recursive=True)


def _protocols(filesystem: fsspec.AbstractFileSystem) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)
