"""The contract between raystack and the user's code, and the way from `module:name` to it.

A Task says what is trained and how it is used; nothing of it names Ray, a strategy or a device. Any object with these
methods is one. The folder its module lies in travels as an archive, to every worker and into every checkpoint.
"""

import hashlib
import importlib
import io
import os
import sys
import tempfile
import traceback
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, runtime_checkable

from raystack.config.secret import resolve_all
from raystack.config.task import Task as TaskConfig
from raystack.errors import ConfigError, PlanError, Problem, nearest

if TYPE_CHECKING:
    from torch import Tensor, nn

Dtype = Literal["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]

MAX_ARCHIVE_BYTES = 32 * 2**20


@dataclass(frozen=True)
class TensorSpec:
    """One named input or output of `predict`."""

    name: str
    dtype: Dtype
    """NumPy's name of the element type."""
    shape: tuple[int, ...]
    """Sizes, -1 where any size is allowed; the first is the batch and is always -1."""

    def __post_init__(self) -> None:
        if not self.shape or self.shape[0] != -1:
            raise ValueError(f"the shape of '{self.name}' starts with -1, the batch; got {self.shape}")


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of `predict`: what a client may send and what it gets back."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def as_dict(self) -> dict[str, list[dict[str, Any]]]:
        """JSON-ready form; `from_dict` reads it back."""
        return {
            side: [{"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)} for spec in specs]
            for side, specs in (("inputs", self.inputs), ("outputs", self.outputs))
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Sequence[Mapping[str, Any]]]) -> "Signature":
        def specs(side: str) -> tuple[TensorSpec, ...]:
            return tuple(TensorSpec(spec["name"], spec["dtype"], tuple(spec["shape"])) for spec in values[side])

        return cls(specs("inputs"), specs("outputs"))


class MapDataset(Sized, Protocol):
    """A dataset with a length and samples by index, as `torch.utils.data.Dataset` of map style."""

    def __getitem__(self, index: int, /) -> Any: ...


@runtime_checkable
class HasLengths(Protocol):
    """A map-style dataset that knows how long each sample is, e.g. in tokens, for `training.data.bucket`."""

    @property
    def lengths(self) -> Sequence[int]:
        """The length of each sample, by index."""


@runtime_checkable
class StreamDataset(Protocol):
    """Samples that come one after another, always the same ones in the same order. With a `__len__`, that many make an epoch;
    without one the stream has to last as long as the training, which then needs `training.steps`."""

    def stream(self, start: int, /) -> Iterator[Any]:
        """Samples from number `start` (from 0) on. If the iterator has a method `skip(count)`, samples that belong to other
        workers are passed over with it; otherwise they are read and dropped."""


@runtime_checkable
class RayDataset(Protocol):
    """What is used of `ray.data.Dataset`: its rows, as dicts, are the samples."""

    @property
    def context(self) -> Any:
        """Its settings; blocks are told to keep their order."""

    def count(self) -> int:
        """Rows."""

    def iter_batches(self, *, prefetch_batches: int, batch_size: int | None, batch_format: str | None) -> Iterable[Mapping[str, Any]]:
        """With `batch_size=None` and the format `numpy`: one mapping of columns [rows, ...] per block."""


Dataset = MapDataset | StreamDataset | RayDataset | Iterable[Any]
"""What a Task's data may be. An iterable without samples by index, such as torch's IterableDataset, is read from its
beginning each time, and is otherwise as a StreamDataset."""


class Task(Protocol):
    """What a user writes. `batch` is what the default collate function makes of samples, on the worker's device."""

    @property
    def signature(self) -> Signature:
        """Inputs and outputs of `predict`."""

    def model(self) -> "nn.Module":
        """A new model with fresh weights, on the CPU. Random numbers are seeded before it is called."""

    def train_data(self) -> Dataset:
        """The training samples."""

    def eval_data(self) -> Dataset | None:
        """The samples to evaluate on, or None. They have a length."""

    def loss(self, model: "nn.Module", batch: Any) -> "Tensor":
        """Mean loss over the samples of `batch`: a scalar that gradients flow from. Call `model(...)`, not a part of it."""

    def metrics(self, model: "nn.Module", batch: Any) -> "Mapping[str, Tensor | tuple[Tensor, Tensor]]":
        """What an evaluation measures on `batch`: a tensor of shape [samples] is averaged over all samples of the eval
        data; a pair (sums, counts) gives total sum / total count. Exact on any number of workers."""

    def predict(self, model: "nn.Module", inputs: Mapping[str, "Tensor"]) -> Mapping[str, "Tensor"]:
        """Outputs for `inputs`, both as the signature names them; runs without gradients, in eval mode."""


@runtime_checkable
class HasBlocks(Protocol):
    """A Task that says which parts of its model repeat; gradient checkpointing recomputes each of them."""

    def blocks(self, model: "nn.Module") -> "Iterable[nn.Module]": ...


@runtime_checkable
class Collates(Protocol):
    """A Task with its own way from a list of samples to a batch."""

    def collate(self, samples: list[Any]) -> Any: ...


@runtime_checkable
class CountsTokens(Protocol):
    """A Task whose speed is better told in tokens than in samples."""

    def tokens(self, batch: Any) -> int: ...


@runtime_checkable
class Demonstrates(Protocol):
    """A Task that shows what the trained model can do, as text for the end of the run."""

    def demonstrate(self, model: "nn.Module") -> str: ...


@runtime_checkable
class Exports(Protocol):
    """A Task that writes its model in the form of another library, beside raystack's own."""

    def export(self, model: "nn.Module", folder: Path) -> None:
        """Write into `folder`, a checkpoint's `model/`, below a name of its own. `model` has full weights, on one process, in
        eval mode, and stays as it is."""


REQUIRED = ("signature", "model", "train_data", "eval_data", "loss", "metrics", "predict")


def load(config: TaskConfig) -> Task:
    """Import `entry` and call it with `args`. Raises ConfigError where that fails, with the line of the user's code."""
    made = entry(config)
    args = resolve_all(config.args)
    try:
        task = made(**args)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(_raised("task.entry", f"{config.entry} raised while it was built", error, config.folder)) from error
    missing = [name for name in REQUIRED if not hasattr(task, name)]
    if missing:
        raise ConfigError(
            Problem("task.entry", rule=f"a task needs {', '.join(missing)}", got=config.entry, remedy="see raystack.task.Task")
        )
    return cast(Task, task)


def entry(config: TaskConfig) -> Any:
    """Import what `entry` names: a class, or a function that makes the task. Raises ConfigError where that fails."""
    module_name, _, attribute = config.entry.partition(":")
    module = _import(module_name, config)
    if not hasattr(module, attribute):
        close = nearest(attribute, [name for name in vars(module) if not name.startswith("_")])
        remedy = f"did you mean '{module_name}:{close}'?" if close else None
        raise ConfigError(Problem("task.entry", rule=f"there is no '{attribute}' in {module.__file__}", got=config.entry, remedy=remedy))
    return getattr(module, attribute)


def call(what: str, function: Any, *args: Any, folder: str | None) -> Any:
    """Call a method of a Task before training; ConfigError with the line of the user's code if it raises."""
    try:
        return function(*args)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(_raised(f"task: {what}", "the task raised", error, folder)) from error


def blame(error: BaseException, folder: str | None) -> str:
    """`file:line` of the innermost frame in the user's folder, or of the innermost frame of all."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if folder is not None and frame.filename.startswith(folder)]
    if not frames:
        return "unknown place"
    frame = (own or list(frames))[-1]
    return f"{os.path.basename(frame.filename)}:{frame.lineno}"


def trace(error: BaseException, folder: str | None) -> str | None:
    """The frames of the user's folder on the way to `error`, as Python shows them; None if there are none."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if folder is not None and frame.filename.startswith(folder)]
    if not own:
        return None
    for frame in own:
        frame.filename = os.path.basename(frame.filename)
    return "".join([*traceback.format_list(own), *traceback.format_exception_only(error)]).rstrip()


def _raised(where: str, rule: str, error: Exception, folder: str | None) -> Problem:
    return Problem(where, rule=f"{rule}: {type(error).__name__}: {error}", remedy=f"see {blame(error, folder)}")


def _import(name: str, config: TaskConfig) -> ModuleType:
    folder = config.folder
    if folder is not None:
        _forget_others(name.partition(".")[0], folder)
        if folder not in sys.path:
            sys.path.insert(0, folder)
        importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            looked = f"in {folder} and " if folder else ""
            raise ConfigError(
                Problem("task.entry", rule=f"there is no module '{name}' {looked}among the installed packages", got=config.entry)
            ) from None
        raise ConfigError(_raised("task.entry", f"importing {name} failed", error, folder)) from error
    except Exception as error:
        raise ConfigError(_raised("task.entry", f"importing {name} failed", error, folder)) from error


def _forget_others(top: str, folder: str) -> None:
    """Let `top` be found in `folder` even if another folder's module of that name was imported before."""
    loaded = sys.modules.get(top)
    if loaded is None or str(getattr(loaded, "__file__", None) or "").startswith(folder):
        return
    for name in [name for name in sys.modules if name == top or name.startswith(f"{top}.")]:
        del sys.modules[name]
    if folder in sys.path:
        sys.path.remove(folder)


def pack(folder: str | Path) -> bytes:
    """The task's folder as a zip archive, the same bytes for the same files. Hidden files and caches stay behind."""
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
            archive.writestr(zipfile.ZipInfo(path.relative_to(root).as_posix()), path.read_bytes(), zipfile.ZIP_DEFLATED)
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
