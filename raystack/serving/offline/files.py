"""What the user names as input -> the files that are meant, each with its format. Nothing is read."""

import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from urllib.parse import urlsplit

from raystack.errors import ConfigError, LaunchError, Problem, RaystackError, TrainingError, nearest
from raystack.plan.prediction import InputFile
from raystack.storage import Storage

FORMATS: Mapping[str, str] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".npy": "npy",
    ".npz": "npz",
}
PACKED = (".gz", ".bz2", ".xz", ".zst")
"""What fsspec unpacks by the name of a file."""
TEXT = ("csv", "tsv", "json", "jsonl")
WHERE = "--in"


def find_files(inputs: Sequence[str], out: str) -> tuple[InputFile, ...]:
    """Return the files that `inputs` mean, in their order; those of one folder or pattern by name.

    Files below `out`, which are the output, are none of them. Raises ConfigError if one means no file, or a
    file whose format is not known.
    """
    with of_output(out):
        own = f"{Storage(out).path()}/"
    files = [file for place in inputs for file in _find(place, own)]
    again, times = Counter(file.url for file in files).most_common(1)[0] if files else ("", 0)
    if times > 1:
        rule = "is named more than once, and its rows would be predicted twice"
        raise ConfigError(Problem(f"{WHERE} {again}", rule=rule, remedy="name it once"))
    return tuple(files)


def format_of(url: str) -> str | None:
    """Return the format that the name of a file says; None if it is none of them."""
    name = posixpath.basename(urlsplit(url).path if "://" in url else url).lower()
    stem, suffix = posixpath.splitext(name)
    if suffix in PACKED:
        found = FORMATS.get(posixpath.splitext(stem)[1])
        return found if found in TEXT else None
    return FORMATS.get(suffix)


def _find(place: str, own: str) -> list[InputFile]:
    with of_input(place):
        storage = Storage(place)
        if f"{storage.path()}/".startswith(own):
            rule, remedy = "is the folder of the input, too, or above it", "name another one"
            raise ConfigError(Problem("--out", rule=rule, got=own.rstrip("/"), remedy=remedy))
        found = {url: info for url, info in storage.found().items() if own not in url}
    if not found:
        raise ConfigError(_missing(place, storage))
    alone = len(found) == 1 and next(iter(found)).endswith(storage.path())
    names = list(found) if alone else [url for url in found if not _is_left_out(url, storage)]
    known = [(url, format_of(url)) for url in names]
    files = [
        InputFile(url, form, found[url].bytes, found[url].mark) for url, form in known if form is not None
    ]
    strange = next((url for url, form in known if form is None), None)
    if strange is not None:
        rule = f"the name of a file says its format: {', '.join(FORMATS)}, text also with {', '.join(PACKED)}"
        remedy = "rename it" if alone else "rename it, or give a pattern such as '*.parquet'"
        raise ConfigError(Problem(f"{WHERE} {place}", rule=rule, got=strange, remedy=remedy))
    if not files:
        raise ConfigError(_missing(place, storage))
    return files


def _is_left_out(url: str, storage: Storage) -> bool:
    """Return whether a file of a folder is none of its data, by its name or a folder's below the place."""
    root = storage.path().split("*")[0].split("?")[0]
    inside = url[url.find(root) + len(root) :] if root in url else url
    return any(part.startswith(("_", ".")) for part in inside.split("/"))


def _missing(place: str, storage: Storage) -> Problem:
    above, _, name = storage.path().rpartition("/")
    beside = Storage(above).names() if storage.local and above else []
    close = nearest(name, beside)
    remedy = f"did you mean {above}/{close}?" if close else "name a file, a folder with files, or a pattern"
    return Problem(f"{WHERE} {place}", rule="there is no file of that name", remedy=remedy)


@contextmanager
def of_input(place: str) -> Iterator[None]:
    """Have the problems of a store name the option that chose it, and no key of a training's storage."""
    with _named(f"{WHERE} {place}"):
        yield


@contextmanager
def of_output(place: str) -> Iterator[None]:
    """Have the problems of a store name the option that chose it, and no key of a training's storage."""
    with _named(f"--out {place}"):
        yield


@contextmanager
def _named(where: str) -> Iterator[None]:
    try:
        yield
    except (ConfigError, TrainingError) as error:
        kind: type[RaystackError] = ConfigError if isinstance(error, ConfigError) else LaunchError
        raise kind([_renamed(problem, where) for problem in error.problems]) from error
    except OSError as error:
        raise LaunchError(Problem(where, rule=f"cannot be used: {error}")) from error


def _renamed(problem: Problem, where: str) -> Problem:
    if problem.where.startswith("--"):
        return problem
    remedy = problem.remedy if "RAYSTACK" not in (problem.remedy or "") else None
    return replace(problem, where=where, remedy=remedy)
