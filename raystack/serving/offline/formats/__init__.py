"""Formats of input files. In: a file, and a range of its rows. Out: columns by name, some rows at a time.

Each format first measures a file: its rows, where a part may begin, and the types of its columns.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

from raystack.plan.prediction import InputFile
from raystack.serving.offline.formats.arrays import Npy, Npz
from raystack.serving.offline.formats.delimited import Delimited
from raystack.serving.offline.formats.documents import Documents, Lines
from raystack.serving.offline.formats.parquet import Parquet
from raystack.serving.offline.formats.reader import Measured, Reader
from raystack.serving.offline.threads import ReadingPool

READERS: Mapping[str, Callable[[], Reader]] = {
    "parquet": Parquet,
    "csv": lambda: Delimited(b","),
    "tsv": lambda: Delimited(b"\t"),
    "json": Documents,
    "jsonl": Lines,
    "npy": Npy,
    "npz": Npz,
}
"""What reads a format; a reader keeps the file that it has read last."""

MEASURED = 16
"""Files that are measured at the same time."""


def measure(files: Sequence[InputFile], inputs: Collection[str]) -> list[Measured]:
    """Measure each file, as its reader does. Raises ConfigError for the first that cannot be read."""
    with ReadingPool(MEASURED) as pool:
        return list(pool.map(lambda file: READERS[file.format]().measure(file, inputs), files))


__all__ = ["READERS", "Measured", "Reader", "measure"]
