"""Local model folders of checkpoints; remote ones are copied once per machine."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from raystack.checkpoint import MODEL
from raystack.checkpoint.model import CARD, WEIGHTS
from raystack.errors import ConfigError, Problem, RaystackError, ServingError
from raystack.storage import Storage

KEY = "serving.model"
FORMS = "models:/name@alias, models:/name/version, or a checkpoint's folder or URL"


def model_folder(place: str) -> Path:
    """Return the local folder with `model.json` for a checkpoint or the `model/` folder of one.

    Raises ConfigError if there is no model, ServingError if its files cannot be fetched.
    """
    if "://" in place and not place.startswith("file://"):
        return _fetched(place.rstrip("/"))
    path = Path(place.removeprefix("file://")).expanduser().absolute()
    for folder in (path, path / MODEL):
        if (folder / CARD).is_file():
            return folder
    if path.exists():
        raise _no_model(place)
    raise wrong("there is no such folder", place, "train first, or name another folder")


def _fetched(url: str) -> Path:
    try:
        storage = Storage(url)
        names = storage.names()
        inside = "" if CARD in names else MODEL
        if inside and CARD not in (names := storage.names(inside)):
            raise _no_model(url)
        if WEIGHTS not in names:
            rule = f"this model has no weights: it has no {WEIGHTS}"
            remedy = f"raystack checkpoint export {url.removesuffix(f'/{MODEL}')}"
            raise ServingError(Problem(KEY, rule=rule, got=url, remedy=remedy))
        marks = [storage.mark(f"{inside}/{name}".lstrip("/")) for name in (CARD, WEIGHTS)]
        return cached(f"{url} {' '.join(marks)}", lambda folder: storage.get(inside, Path(folder)))
    except RaystackError as error:  # Storage's own problems name the key of a training's storage
        named = [replace(problem, where=KEY, got=problem.got or url) for problem in error.problems]
        raise (ConfigError if isinstance(error, ConfigError) else ServingError)(named) from None
    except OSError as error:
        raise ServingError(Problem(KEY, rule=f"the files cannot be fetched: {error}", got=url)) from None


def cached(identity: str, fetch: Callable[[str], object]) -> Path:
    """Return the folder that `fetch` fills once per machine and identity."""
    home = Path(tempfile.gettempdir()) / f"raystack-{os.getuid()}" / "models"
    folder = home / hashlib.sha256(identity.encode()).hexdigest()[:16]
    if not folder.is_dir():
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=home) as partial:
            Path(partial, MODEL).mkdir()
            fetch(f"{partial}/{MODEL}")
            # The rename is atomic, so that another process never sees a partial copy.
            try:
                Path(partial, MODEL).rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was first
                    raise
    return folder


@contextmanager
def placed(where: str, remedy: str | None = None) -> Iterator[None]:
    """Have errors of the block that blame `serving.model` blame `where`, which the block looks for.

    `remedy` takes the place of theirs.
    """
    try:
        yield
    except (ConfigError, ServingError) as error:
        raise type(error)([_placed(each, where, remedy) for each in error.problems]) from error


def _placed(problem: Problem, where: str, remedy: str | None) -> Problem:
    if problem.where != KEY:
        return problem
    got = None if problem.got == where else problem.got
    return replace(problem, where=where, got=got, remedy=remedy or problem.remedy)


def wrong(rule: str, got: str, remedy: str | None) -> ConfigError:
    """Return the ConfigError of a requested model that does not exist."""
    return ConfigError(Problem(KEY, rule=rule, got=got, remedy=remedy))


def _no_model(place: str) -> ConfigError:
    return wrong(f"there is no {CARD} in it or in its {MODEL}/ folder", place, f"accepted: {FORMS}")
