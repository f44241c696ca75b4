"""What is kept of a run's cluster, in the run's folder: logs, events, the last status.

In: a folder of this machine, or lines. Out: files below `kept/` of the run's folder, for when the cluster is
gone.

`<pod>/<file>.log`, `driver/<job>.log`, `events.txt`, `pods.json`, `status.json`, `diagnosis.json`,
`stacks/<step>.txt` and `missing.txt`; `metrics/` and `plan.json` are beside it.
"""

from collections.abc import Iterable
from pathlib import Path

from raystack.runs.ending import bounded
from raystack.storage import Storage

FOLDER = "kept"
STATUS, DIAGNOSIS = "status.json", "diagnosis.json"
DRIVER = "driver/"
"""Folder of the drivers' logs, as Ray has them."""


def put(run: str, source: str | Path) -> str | None:
    """Copy the files below `source` into the folder of a run, and return where they are.

    None if the run's folder is not to be reached from here: a local one that this machine does not have.
    Raises the store's errors.
    """
    storage, source = Storage(run), Path(source)
    if storage.local and not Path(storage.path()).is_dir():
        return None
    with bounded(storage) as patient:
        for file in sorted(each for each in source.rglob("*") if each.is_file()):
            patient.put(file, f"{FOLDER}/{file.relative_to(source).as_posix()}")
    return f"{run}/{FOLDER}"


def write(run: str, name: str, lines: Iterable[str]) -> None:
    """Write lines to a file of what is kept of a run. Raises the store's errors."""
    storage = Storage(run)
    file = f"{FOLDER}/{name}"
    if storage.local:
        storage.make(str(Path(file).parent))
    with bounded(storage) as patient:
        patient.write(file, "".join(f"{line}\n" for line in lines))
