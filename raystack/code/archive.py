"""Pack the folder of the user's module into an archive for workers and checkpoints."""

import hashlib
import io
import json
import os
import tempfile
import zipfile
from pathlib import Path

from raystack.errors import PlanError, Problem

MAX_ARCHIVE_BYTES = 32 * 2**20
"""Every worker and every checkpoint gets a copy, so data does not belong in the folder."""
RENDERED = ".raystack"
"""File beside rendered manifests that names them, without an ending that kubectl and Argo CD would read."""


def pack(folder: str | Path) -> bytes:
    """Return the task's folder as a zip archive, without hidden files, caches and rendered manifests.

    The same files give the same bytes. Raises PlanError if the folder is too large.
    """
    root = Path(folder)
    paths = (path for path in root.rglob("*") if path.is_file())
    rendered = _rendered(root)
    files = sorted(path for path in paths if path not in rendered and not _ignored(path.relative_to(root)))
    size = sum(path.stat().st_size for path in files)
    if size > MAX_ARCHIVE_BYTES:
        largest = max(files, key=lambda path: path.stat().st_size)
        raise PlanError(
            Problem(
                "task.folder",
                rule=f"the folder travels with the run and may hold {MAX_ARCHIVE_BYTES >> 20} MiB",
                got=f"{size / 2**20:.0f} MiB, the largest file is {largest}",
                remedy="keep data elsewhere and pass its path in task.args",
            )
        )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            # A ZipInfo made from a name alone has a fixed date, unlike one that is made from a file.
            archive.writestr(
                zipfile.ZipInfo(path.relative_to(root).as_posix()), path.read_bytes(), zipfile.ZIP_DEFLATED
            )
    return buffer.getvalue()


def _rendered(root: Path) -> set[Path]:
    """Return the files that `raystack render` wrote below the folder: they hold it, and would not end."""
    found: set[Path] = set()
    for record in root.rglob(RENDERED):
        try:
            names = [
                name for files in json.loads(record.read_text(encoding="utf-8")).values() for name in files
            ]
        except (OSError, ValueError, AttributeError, TypeError):
            continue  # a folder, or somebody else's file
        found.update(record.parent / str(name) for name in names)
    return found


def _ignored(path: Path) -> bool:
    return any(part.startswith(".") or part == "__pycache__" for part in path.parts) or path.suffix == ".pyc"


def unpack(archive: bytes) -> str:
    """Unpack an archive, once per machine and content, and return the folder."""
    digest = hashlib.sha256(archive).hexdigest()[:16]
    home = Path(tempfile.gettempdir()) / f"raystack-{os.getuid()}" / "code"
    folder = home / digest
    if not folder.is_dir():
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=home) as partial:
            zipfile.ZipFile(io.BytesIO(archive)).extractall(f"{partial}/code")
            # All workers of a node unpack at the same time. The rename makes the folder appear complete, and
            # fails if another worker was first.
            try:
                os.rename(f"{partial}/code", folder)
            except OSError:
                if not folder.is_dir():
                    raise
    return str(folder)
