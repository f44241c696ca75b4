"""What a run has recorded in W&B's offline files, of which W&B has no reader in Python.

A file is a log in LevelDB's format: blocks of 32 KiB with records, or with fragments of those that are longer
than what is left of a block, each after a header of seven bytes. A record is a protobuf message.
(https://github.com/google/leveldb/blob/main/doc/log_format.md)
"""

import struct
import time
from collections.abc import Iterator
from pathlib import Path

from wandb.proto.wandb_internal_pb2 import Record

OWN_HEADER = 7
"""Size in bytes of the file's own header: `:W&B`, a magic number, the version."""
BLOCK = 32 * 1024
HEADER = struct.Struct("<IHB")
"""Header of a fragment: checksum, size in bytes, kind."""
FULL, FIRST, LAST = 1, 2, 4
"""Kinds of fragment; the one between is 3."""
PATIENCE_S = 10.0


def folders(above: Path, run_id: str) -> list[Path]:
    """Return the folders of the run's offline starts in `above`, the oldest first."""
    return sorted(above.glob(f"offline-run-*-{run_id}"))


def last_steps(above: Path, run_id: str) -> dict[str, int]:
    """Return the last step of each metric in the run's offline files below `above`."""
    last: dict[str, int] = {}
    for folder in folders(above, run_id):
        for record in records(folder / f"run-{run_id}.wandb"):
            for item in record.history.item:
                last["/".join(item.nested_key)] = record.history.step.num
    return last


def await_end(folder: Path, run_id: str) -> None:
    """Wait for some seconds until the file of a start has its end: W&B's own process writes it later."""
    file, deadline = folder / f"run-{run_id}.wandb", time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and not any(record.HasField("exit") for record in records(file)):
        time.sleep(0.05)


def records(file: Path) -> Iterator[Record]:
    """Yield the records of a file, up to one that was cut off because its writer was killed."""
    content = file.read_bytes()
    at, whole = OWN_HEADER, b""
    while at + HEADER.size <= len(content):
        if (left := BLOCK - at % BLOCK) < HEADER.size:
            at += left
            continue
        _, size, kind = HEADER.unpack_from(content, at)
        at += HEADER.size + size
        if kind == 0 or at > len(content):
            return
        fragment = content[at - size : at]
        whole = fragment if kind in (FULL, FIRST) else whole + fragment
        if kind in (FULL, LAST):
            yield Record.FromString(whole)
