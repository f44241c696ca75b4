"""The rows of an input, where a file says them itself, as Parquet and NumPy do."""

from collections.abc import Sequence
from dataclasses import replace

from raystack.plan.prediction import InputFile
from raystack.serving.offline.files import TEXT

MOST = 1_000
"""Files whose footers are read for that at most."""


def counted(files: Sequence[InputFile]) -> tuple[InputFile, ...]:
    """Return the files with their rows, or as they are if one would have to be read whole."""
    if len(files) > MOST or any(file.format in TEXT for file in files):
        return tuple(files)
    from raystack.serving.offline.formats import measure

    return tuple(
        replace(file, rows=known.rows) for file, known in zip(files, measure(files, ()), strict=True)
    )
