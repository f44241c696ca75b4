"""What is predicted, decided once: the model, the files of the input, and the parts.

It is the manifest of the output's folder, which says what the files there are, and what a command that goes
on has to agree with.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from raystack import __version__
from raystack.checkpoint.checksums import CHECKSUMS
from raystack.checkpoint.model import CARD, read_spec
from raystack.errors import ConfigError, Problem
from raystack.plan.prediction import InputFile, OnError
from raystack.task import Signature

FORMAT = 1


@dataclass(frozen=True)
class Part:
    """A range of rows of one file, which is one file of the output."""

    file: int
    """Number of its file in the input."""
    start: int
    stop: int
    """The first row, counted from 0 in its file, and that after the last one."""
    offset: int = 0
    length: int = 0
    """Where its bytes are, in a format that has rows of different lengths."""


@dataclass(frozen=True)
class Model:
    """The model that predicts."""

    uri: str
    """`models:/name/version`, or the folder or URL of a checkpoint."""
    requested: str
    """What was asked for, such as an alias."""
    run_id: str
    step: int
    digest: str
    """SHA-256 of what says which files it has."""


@dataclass(frozen=True)
class Work:
    """All that decides about the rows of the output, and how far it has come."""

    model: Model
    signature: Mapping[str, Any]
    inputs: tuple[InputFile, ...]
    columns: Mapping[str, tuple[str, ...]]
    """The columns of each input of the model."""
    keep: tuple[str, ...]
    """Columns of the input that the output has."""
    outputs: Mapping[str, str]
    """The column of each output of the model."""
    types: str
    """The types of the columns of the input, as Arrow serializes a schema, in base64."""
    precision: str
    """`serving.precision`, which the model computes in."""
    numbered: bool
    """Whether the output has the column `row`, for lack of others to tell its rows apart."""
    part_rows: int
    parts: tuple[Part, ...]
    on_error: OnError = "fail"
    complete: bool = False
    rows: int = 0
    """Rows of the input."""
    skipped: int | None = None
    """Rows that are not in the output; None: it is not complete."""
    seconds: float = 0.0
    """Time that the command took that completed it."""
    format: int = FORMAT
    raystack: str = field(default=__version__)

    @cached_property
    def schema(self) -> pa.Schema:
        """The types of the input's columns."""
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(self.types)))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The name of each part's file: in the order of the input, with the file and the rows that it has."""
        width = max(5, len(str(len(self.parts) - 1)))
        return tuple(
            f"{number:0{width}d}-{_stem(self.inputs[part.file].url)}-{part.start}-{part.stop}.parquet"
            for number, part in enumerate(self.parts)
        )

    @cached_property
    def first_rows(self) -> tuple[int, ...]:
        """The number of the first row of each file, counted over all files."""
        starts, position = [], 0
        for file in self.inputs:
            starts.append(position)
            position += file.rows or 0
        return tuple(starts)

    def as_json(self) -> str:
        """Return it as JSON, for `from_json`."""
        return WORK.dump_json(self, indent=1).decode()

    @classmethod
    def from_json(cls, text: str, where: str) -> "Work":
        """Build it from what `as_json` returned. Raises ConfigError, at `where`, if it cannot be read."""
        try:
            work = WORK.validate_json(text)
        except ValidationError as error:
            rule = f"is damaged, or of another raystack: {error.errors()[0]['msg']}"
            remedy = "name another folder with --out"
            raise ConfigError(Problem(where, rule=rule, remedy=remedy)) from None
        return work

    def differences(self, other: "Work") -> Iterator[tuple[str, str, str]]:
        """Yield what decides about the output and is not as in `other`: its name, and both values."""
        if (self.model.uri, self.model.digest) != (other.model.uri, other.model.digest):
            yield "the model", _model(self.model, other.model), _model(other.model, self.model)
        ours, theirs = ({file.url: file for file in work.inputs} for work in (self, other))
        if list(ours) != list(theirs):
            extra = next((url for url in ours if url not in theirs), None)
            lost = next((url for url in theirs if url not in ours), None)
            yield "the input's files", extra or f"without {lost}", lost or f"without {extra}"
        changed = [url for url in ours if url in theirs and ours[url].identity != theirs[url].identity]
        if changed:
            now, then = (files[changed[0]] for files in (ours, theirs))
            yield changed[0], now.version, then.version
        if self.precision != other.precision:
            yield "serving.precision", self.precision, other.precision
        for name in ("columns", "keep", "outputs"):
            mine, its = getattr(self, name), getattr(other, name)
            if mine != its:
                yield f"--{name}", _short(mine), _short(its)

    def ended(self, skipped: int, seconds: float) -> "Work":
        """Return it as complete."""
        return replace(self, complete=True, skipped=skipped, seconds=seconds)


WORK = TypeAdapter(Work)


def describe_model(uri: str, requested: str, folder: Path) -> tuple[Model, Signature]:
    """Return the model in a `model/` folder, and its signature. Raises ServingError if it is none."""
    card = read_spec(folder)
    sums = folder / CHECKSUMS
    listed = sums if sums.is_file() else folder / CARD
    digest = hashlib.sha256(listed.read_bytes()).hexdigest()
    return Model(uri, requested, card.run_id, card.step, digest), card.signature


def types_of(schema: pa.Schema) -> str:
    """Return a schema as text."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def _model(one: Model, other: Model) -> str:
    return one.uri if one.uri != other.uri else f"{one.uri} with other files, step {one.step}"


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(
            f"{name}={','.join(to) if isinstance(to, tuple) else to}" for name, to in value.items()
        )
    return ", ".join(value) or "none"


def _stem(url: str) -> str:
    """Return the name of a file, without what a name of a file must not have."""
    name = url.rstrip("/").rpartition("/")[2].split(".")[0]
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)[:40] or "data"
