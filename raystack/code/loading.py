"""Import the user's Task from `module:name`, and find the user's code in a traceback."""

import copy
import importlib
import inspect
import os
import sys
import traceback
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from raystack.config.secret import resolve_all
from raystack.config.task import Task as TaskConfig
from raystack.errors import ConfigError, Problem, nearest
from raystack.task import Task

if TYPE_CHECKING:
    from torch import nn

RESTORED = "restored"
"""Keyword of `model` that a task may have."""

FRAMES, LINES, WIDTH = 10, 12, 500
"""Most frames of a traceback, lines of a message and characters of a line: an error fits on a screen."""

_FOLDERS: set[str] = set()
"""Folders that tasks were imported from in this process."""

# Checked by name, and not with `isinstance` of a runtime-checkable protocol, so that an error can list what
# is missing.
REQUIRED = ("signature", "model", "train_data", "eval_data", "loss", "metrics", "predict")


def load(config: TaskConfig) -> Task:
    """Import the task's `entry` and call it with its `args`.

    Raises ConfigError, with the line of the user's code, if either fails or the result is not a Task.
    """
    factory = entry(config)
    args = resolve_all(config.args)
    try:
        task = factory(**args)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            _raised("task.entry", f"{config.entry} raised while it was built", error, config.folder)
        ) from error
    missing = [name for name in REQUIRED if not hasattr(task, name)]
    if missing:
        raise ConfigError(
            Problem(
                "task.entry",
                rule=f"a task needs {', '.join(missing)}",
                got=config.entry,
                remedy="see raystack.task.Task",
            )
        )
    return cast(Task, task)


def entry(config: TaskConfig) -> Any:
    """Import the class or function that makes the task. Raises ConfigError if that fails."""
    module_name, _, attribute = config.entry.partition(":")
    module = _import(module_name, config)
    if not hasattr(module, attribute):
        close = nearest(attribute, [name for name in vars(module) if not name.startswith("_")])
        remedy = f"did you mean '{module_name}:{close}'?" if close else None
        raise ConfigError(
            Problem(
                "task.entry",
                rule=f"there is no '{attribute}' in {module.__file__}",
                got=config.entry,
                remedy=remedy,
            )
        )
    return getattr(module, attribute)


def make_model(task: Task, *, restored: bool) -> "nn.Module":
    """Return a new model of the task, which is told by its keyword `restored`, if `model` has it.

    `restored`: stored weights will replace all of its own.
    """
    if RESTORED in inspect.signature(task.model).parameters:
        return cast(Any, task).model(**{RESTORED: restored})  # type: ignore[no-any-return]
    return task.model()


def call(what: str, function: Any, *args: Any, folder: str | None) -> Any:
    """Call a method of the user's task before training starts; `what` names it in an error.

    Raises ConfigError, with the line of the user's code, if it raises.
    """
    try:
        return function(*args)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(_raised(f"task: {what}", "the task raised", error, folder)) from error


class RemoteTraceError(Exception):
    """The cause of an exception that comes from another process: its frames, as a traceback cannot travel."""

    def __init__(self, frames: list[traceback.FrameSummary]) -> None:
        self.frames = frames
        super().__init__("\n" + "".join(traceback.format_list(frames)))


def frames(error: BaseException) -> list[traceback.FrameSummary]:
    """Return the frames of `error`, outermost first; those of the process that raised it if it is another."""
    if isinstance(error.__cause__, RemoteTraceError):
        return error.__cause__.frames
    return list(traceback.extract_tb(error.__traceback__))


def blame(error: BaseException, folder: str | None) -> str:
    """Return `file:line` of the innermost frame in the user's folder, or else of the innermost frame."""
    every = frames(error)
    if not every:
        return "unknown place"
    frame = (_own(every, folder) or every)[-1]
    return f"{os.path.basename(frame.filename)}:{frame.lineno}"


def trace(error: BaseException, folder: str | None) -> str | None:
    """Return the traceback of `error` with only the frames of the user's folder; None if there are none."""
    own = [copy.copy(frame) for frame in _own(frames(error), folder)]
    if not own:
        return None
    for frame in own:
        # On a worker the folder is an unpacked copy, whose path says nothing to the user.
        frame.filename = os.path.basename(frame.filename)
    # A StackSummary shows repeated calls once.
    shown = traceback.StackSummary.from_list(own).format()[-FRAMES:]
    return "".join([*shown, brief("".join(traceback.format_exception_only(error)))]).rstrip()


def brief(message: str) -> str:
    """Return the first lines of an exception's message, and of a long line its beginning.

    Some print whole tensors or files.
    """
    lines = [
        line if len(line) <= WIDTH else f"{line[:WIDTH]}... ({len(line):,} characters)"
        for line in message.splitlines()
    ]
    return "\n".join(lines if len(lines) <= LINES else [*lines[: LINES - 1], f"... {len(lines)} lines"])


def _own(every: list[traceback.FrameSummary], folder: str | None) -> list[traceback.FrameSummary]:
    return [frame for frame in every if folder is not None and frame.filename.startswith(folder)]


def _raised(where: str, rule: str, error: Exception, folder: str | None) -> Problem:
    rule = brief(f"{rule}: {type(error).__name__}: {error}")
    return Problem(where, rule=rule, remedy=f"see {blame(error, folder)}")


def _import(name: str, config: TaskConfig) -> ModuleType:
    folder = config.folder
    if folder is not None:
        _forget_others(name.partition(".")[0], folder)
        if folder not in sys.path:
            sys.path.insert(0, folder)
        # Import finders cache directory listings, and the folder may have been unpacked just now.
        importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # The module itself is missing, and not one that it imports.
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            searched = f"in {folder} and " if folder else ""
            raise ConfigError(
                Problem(
                    "task.entry",
                    rule=f"there is no module '{name}' {searched}among the installed packages",
                    got=config.entry,
                )
            ) from None
        raise ConfigError(_raised("task.entry", f"importing {name} failed", error, folder)) from error
    except Exception as error:
        raise ConfigError(_raised("task.entry", f"importing {name} failed", error, folder)) from error


def _forget_others(top: str, folder: str) -> None:
    """Remove the modules of other tasks, and `top` of another folder, to have them imported from `folder`.

    Whoever holds such a module, as the task of a version that is still served, goes on with it.
    """
    others = _FOLDERS - {folder}
    _FOLDERS.add(folder)
    for name, module in list(sys.modules.items()):
        first = name.partition(".")[0]
        file = str(getattr(module, "__file__", None) or "")
        foreign = first == top and not file.startswith(folder)
        if foreign or file.startswith(tuple(f"{other}/{first}{end}" for other in others for end in "./")):
            del sys.modules[name]
    if folder in sys.path:
        sys.path.remove(folder)
