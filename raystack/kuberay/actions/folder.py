"""The folder of `raystack render -o`: files are written, and what an earlier render left there is removed.

A record in the folder names what was written, with its digest, so that nobody else's file is removed, nor one
that was changed by hand. It belongs beside the files, also in a repository.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from raystack.code.archive import RENDERED
from raystack.errors import ConfigError, Problem

RECORD = RENDERED
"""Name of the record."""
Record = dict[str, dict[str, str]]
"""Digests by file name, of each set of files that is rendered together."""
_LABEL = b"app.kubernetes.io/managed-by: raystack"
"""Label of all objects that are rendered."""


@dataclass(frozen=True)
class Written:
    """What a render did to its folder."""

    paths: tuple[Path, ...]
    removed: tuple[Path, ...]
    kept: tuple[Path, ...]
    """Files of an earlier render that somebody has changed since."""


def write(folder: Path, texts: Mapping[str, str], rendered: str) -> Written:
    """Write the texts by file name, and remove what the last render of this set wrote and this one did not.

    `rendered` names the set, such as `job`: other sets in the same folder stay. Raises ConfigError for a file
    of somebody else that would be overwritten.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = _read(folder / RECORD)
    _refuse_foreign(folder, texts, record)
    before = record.get(rendered, {})
    removed, kept = [], []
    for name, digest in before.items():
        path = folder / name
        if name in texts or not path.is_file():
            continue
        if _digest(path.read_bytes()) == digest:
            path.unlink()
            removed.append(path)
        else:
            kept.append(path)
    for name, text in texts.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    others = {
        other: {name: digest for name, digest in files.items() if name not in texts}
        for other, files in record.items()
        if other != rendered
    }
    own = {name: _digest(text.encode()) for name, text in texts.items()}
    record = {**{other: files for other, files in others.items() if files}, rendered: own}
    (folder / RECORD).write_text(_written(record), encoding="utf-8")
    return Written(tuple(folder / name for name in texts), tuple(removed), tuple(kept))


def _refuse_foreign(folder: Path, texts: Mapping[str, str], record: Record) -> None:
    own = {name for files in record.values() for name in files}
    there = {name: (folder / name).read_bytes() for name in texts if (folder / name).is_file()}
    foreign = [
        name
        for name, content in there.items()
        # A folder that was rendered before there was a record has none.
        if name not in own and content != texts[name].encode() and _LABEL not in content
    ]
    if foreign:
        rule, remedy = "no render has written it, and this one would", "move it, or take another --out"
        raise ConfigError(Problem(str(folder / name), rule=rule, remedy=remedy) for name in foreign)


def rewrite(folder: Path, texts: Mapping[str, str]) -> None:
    """Write other texts into files of a render, which stay its own."""
    record = _read(folder / RECORD)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
        for files in record.values():
            if name in files:
                files[name] = _digest(text.encode())
    (folder / RECORD).write_text(_written(record), encoding="utf-8")


def rendered(folder: Path) -> tuple[Path, ...]:
    """Return the files of all renders that are in the folder."""
    names = sorted({name for files in _read(folder / RECORD).values() for name in files})
    return tuple(folder / name for name in names if (folder / name).is_file())


def _written(record: Record) -> str:
    return f"{json.dumps(record, indent=1, sort_keys=True)}\n"


def _read(file: Path) -> Record:
    """Return the record; an empty one where there is none that can be read."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict) or not all(isinstance(files, dict) for files in found.values()):
        return {}
    return {
        rendered: {name: digest for name, digest in files.items() if _is_within(Path(name))}
        for rendered, files in found.items()
    }


def _is_within(name: Path) -> bool:
    """Return whether a name is that of a file in the folder: a record from elsewhere leads nowhere else."""
    return not name.is_absolute() and ".." not in name.parts


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
