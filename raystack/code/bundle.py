"""Bundle the config and code of a run or study. In: a RunConfig. Out: files with a digest.

    config.yaml     the resolved config, with `task` as the task's folder and `auto` as Ray's address
    plan.json       the plan of a submitted run; its driver refuses to deviate from it
    task/...        the task's folder, without hidden files and caches; absent for an installed package

`python -m raystack.code.bundle fetch URL FOLDER` unpacks a bundle from an object store. A pod runs it first.
"""

import argparse
import hashlib
import io
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from raystack.code.archive import pack
from raystack.config import RunConfig, dump
from raystack.config.target import Local
from raystack.errors import LaunchError, Problem, RaystackError
from raystack.plan import TrainPlan, TunePlan, decision
from raystack.plan.decision import as_sent, sent_config
from raystack.storage import Storage

CONFIG, TASK = "config.yaml", "task"
FOLDER = "bundles"
"""Folder below a storage URL, where each bundle is named after its digest."""


@dataclass(frozen=True)
class Bundle:
    """Config and code of a run, as files. Equal files have the same digest."""

    files: Mapping[str, bytes]
    """Content by relative POSIX path."""

    @cached_property
    def size(self) -> int:
        """Bytes of all contents."""
        return sum(len(content) for content in self.files.values())

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of all paths and contents in order of the paths."""
        # Each part follows its length, so that moving bytes from a path to its content changes the digest.
        digest = hashlib.sha256()
        for name, content in sorted(self.files.items()):
            for part in (name.encode(), content):
                digest.update(len(part).to_bytes(8, "big"))
                digest.update(part)
        return digest.hexdigest()

    def write(self, folder: Path) -> None:
        """Write the files below `folder`; create it if needed."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def zip(self) -> bytes:
        """Return a zip archive; the same files give the same bytes."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in sorted(self.files.items()):
                archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
        return buffer.getvalue()

    def tar(self) -> bytes:
        """Return a tar archive; the same files give the same bytes."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name, content in sorted(self.files.items()):
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(content), 0o644
                archive.addfile(entry, io.BytesIO(content))
        return buffer.getvalue()

    def put(self, storage_url: str) -> str:
        """Upload it to `<storage_url>/bundles/<digest>.tar`, unless it is there, and return that URL.

        Raises what Storage raises if the store rejects the request or stays unavailable.
        """
        storage, name, archive = (
            Storage(f"{storage_url.rstrip('/')}/{FOLDER}"),
            f"{self.digest}.tar",
            self.tar(),
        )
        if storage.files("").get(name) != len(archive):
            with tempfile.TemporaryDirectory() as folder:
                source = Path(folder, name)
                source.write_bytes(archive)
                storage.put(source, name)
        return f"{storage.url}/{name}"


def bundle(config: RunConfig, decided: TrainPlan | TunePlan | None = None) -> Bundle:
    """Return the bundle of `config`, with the plan that was `decided` if it is submitted as one run or study.

    Raises PlanError if the task's folder is too large.
    """
    if decided is not None:
        config = sent_config(decided)
    folder = config.task.folder
    task = config.task.model_copy(update={"folder": TASK if folder is not None else None})
    there = config.model_copy(update={"task": task, "target": Local(address="auto")})
    files = {CONFIG: dump(there).encode()}
    if decided is not None:
        files[decision.FILE] = as_sent(decided).encode()
    if folder is not None:
        with zipfile.ZipFile(io.BytesIO(pack(folder))) as archive:
            files |= {f"{TASK}/{name}": archive.read(name) for name in archive.namelist()}
    return Bundle(files)


def sent_with(config: Path) -> str | None:
    """Return the plan that was sent with a config, as JSON; None if the config was written by hand."""
    try:
        return config.with_name(decision.FILE).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def fetch(url: str, folder: Path) -> Bundle:
    """Download the bundle at `url` into `folder`. Raises LaunchError if it is missing or damaged."""
    where, _, name = url.rpartition("/")
    try:
        received = _untar(Storage(where).read_bytes(name))
    except FileNotFoundError:
        raise LaunchError(
            Problem(url, rule="there is no such bundle", remedy="submit the run again")
        ) from None
    if received is None or name != f"{received.digest}.tar":
        rule = "this bundle is damaged: its content is not what its name says"
        raise LaunchError(Problem(url, rule=rule, remedy="delete it and submit the run again"))
    received.write(folder)
    return received


def _untar(archive: bytes) -> Bundle | None:
    """Return the bundle in a tar archive; None if it is invalid or has a path outside its folder."""
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
            for entry in opened:
                content = opened.extractfile(entry)
                if content is None or entry.name.startswith("/") or ".." in entry.name.split("/"):
                    return None
                files[entry.name] = content.read()
    except tarfile.TarError:
        return None
    return Bundle(files)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m raystack.code.bundle", description="Unpack what a run was submitted with."
    )
    fetching = parser.add_subparsers(dest="action", metavar="action", required=True).add_parser(
        "fetch", help="unpack a bundle"
    )
    fetching.add_argument("url", help="where it was put; a path or an fsspec URL such as s3://")
    fetching.add_argument("folder", type=Path, help="where to unpack it")
    arguments = parser.parse_args(argv)
    try:
        fetch(arguments.url, arguments.folder)
    except RaystackError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
