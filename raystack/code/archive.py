"""The folder that the user's module lies in, as an archive: it travels to every worker and into every
checkpoint.
"""

import hashlib
import io
import os
import tempfile
import zipfile
from pathlib import Path

from raystack.errors import PlanError, Problem

MAX_ARCHIVE_BYTES = 32 * 2**20


def pack(folder: str | Path) -> bytes:
    """The task's folder as a zip archive, the same bytes for the same files. Hidden files and caches stay
    behind.
    """
    root = Path(folder)
    files = sorted(path for path in root.rglob("*") if path.is_file() and not _stays(path.relative_to(root)))
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
            archive.writestr(
                zipfile.ZipInfo(path.relative_to(root).as_posix()), path.read_bytes(), zipfile.ZIP_DEFLATED
            )
    return buffer.getvalue()


def _stays(path: Path) -> bool:
    return any(part.startswith(".") or part == "__pycache__" for part in path.parts) or path.suffix == ".pyc"


def unpack(archive: bytes) -> str:
    """Unpack once per machine and content; returns the folder."""
    digest = hashlib.sha256(archive).hexdigest()[:16]
    home = Path(tempfile.gettempdir()) / f"raystack-{os.getuid()}" / "code"
    folder = home / digest
    if not folder.is_dir():
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=home) as partial:
            zipfile.ZipFile(io.BytesIO(archive)).extractall(f"{partial}/code")
            try:
                os.rename(f"{partial}/code", folder)
            except OSError:
                if not folder.is_dir():
                    raise
    return str(folder)
