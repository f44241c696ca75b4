"""The SHA-256 of each file of a `model/` folder, so that a model verifies itself wherever it is copied to.

Weights are added to a published checkpoint, whose files never change; so the sums have a file of their own,
which is written last.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from raystack.checkpoint.manifest import NAME, FileEntry, Manifest, sha256
from raystack.checkpoint.model import METRICS
from raystack.checkpoint.store import MODEL
from raystack.errors import Problem, ServingError

CHECKSUMS = "checksums.json"
UNLISTED = (CHECKSUMS, METRICS)
"""Files of the folder without a checksum: metrics come from a later evaluation, and change no answer."""


def write_checksums(folder: Path, entries: Mapping[str, FileEntry]) -> None:
    """Write the entries, by path relative to the model folder, into the existing `folder`."""
    values = {name: asdict(entry) for name, entry in sorted(entries.items())}
    (folder / CHECKSUMS).write_text(json.dumps(values, indent=2), encoding="utf-8")


def verify_model(folder: Path) -> None:
    """Read the files of the model folder at `folder` and compare them with its checksums.

    Without checksums of its own it is compared with the manifest of the checkpoint that it lies in; without
    that as well, it is not compared. Raises ServingError with the first file that is damaged or missing.
    """
    for name, entry in _entries(folder).items():
        path = folder / name
        if not path.is_file():
            raise _damaged(path, "this file of the model is missing", None)
        if (size := path.stat().st_size) != entry.bytes:
            raise _damaged(path, f"this file should have {entry.bytes} bytes: it is damaged", str(size))
        if sha256(path) != entry.sha256:
            raise _damaged(path, "the SHA-256 of this file is not the one of its export: it is damaged", None)


def _entries(folder: Path) -> Mapping[str, FileEntry]:
    path, manifest = folder / CHECKSUMS, folder.parent / NAME
    try:
        if path.is_file():
            values = json.loads(path.read_text(encoding="utf-8"))
            return {name: FileEntry(**entry) for name, entry in values.items()}
        if folder.name == MODEL and manifest.is_file():
            path = manifest
            return model_entries(Manifest.from_json(manifest.read_text(encoding="utf-8")))
    except (ValueError, TypeError, AttributeError) as error:
        raise _damaged(
            path, f"this file cannot be read, so the model may be damaged: {error}", None
        ) from None
    return {}


def model_entries(manifest: Manifest) -> dict[str, FileEntry]:
    """Return the entries of a checkpoint's model folder, by path relative to that."""
    inside = f"{MODEL}/"
    return {
        name.removeprefix(inside): entry
        for name, entry in manifest.files.items()
        if name.startswith(inside) and name.removeprefix(inside) not in UNLISTED
    }


def _damaged(path: Path, rule: str, got: str | None) -> ServingError:
    remedy = (
        "put a whole copy in its place (`raystack checkpoint export` writes one), or serve another version"
    )
    return ServingError(Problem(str(path), rule=rule, got=got, remedy=remedy))
