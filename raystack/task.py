"""The contract between raystack and the user's code.

A Task says what is trained and how it is used; nothing of it names Ray, a strategy or a device. Any object
with these methods is one.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, nn

Dtype = Literal["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]


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
            return tuple(
                TensorSpec(spec["name"], spec["dtype"], tuple(spec["shape"])) for spec in values[side]
            )

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
    """Samples that come one after another, always the same ones in the same order. With a `__len__`, that
    many make an epoch; without one the stream has to last as long as the training, which then needs
    `training.steps`.
    """

    def stream(self, start: int, /) -> Iterator[Any]:
        """Samples from number `start` (from 0) on. If the iterator has a method `skip(count)`, samples that
        belong to other workers are passed over with it; otherwise they are read and dropped.
        """


@runtime_checkable
class RayDataset(Protocol):
    """What is used of `ray.data.Dataset`: its rows, as dicts, are the samples."""

    @property
    def context(self) -> Any:
        """Its settings; blocks are told to keep their order."""

    def count(self) -> int:
        """Rows."""

    def iter_batches(
        self, *, prefetch_batches: int, batch_size: int | None, batch_format: str | None
    ) -> Iterable[Mapping[str, Any]]:
        """With `batch_size=None` and the format `numpy`: one mapping of columns [rows, ...] per block."""


Dataset = MapDataset | StreamDataset | RayDataset | Iterable[Any]
"""What a Task's data may be. An iterable without samples by index, such as torch's IterableDataset, is read
from its beginning each time, and is otherwise as a StreamDataset.
"""


class Task(Protocol):
    """What a user writes. `batch` is what the default collate function makes of samples, on the worker's
    device.
    """

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
        """Mean loss over the samples of `batch`: a scalar that gradients flow from. Call `model(...)`, not a
        part of it.
        """

    def metrics(self, model: "nn.Module", batch: Any) -> "Mapping[str, Tensor | tuple[Tensor, Tensor]]":
        """What an evaluation measures on `batch`: a tensor of shape [samples] is averaged over all samples of
        the eval data; a pair (sums, counts) gives total sum / total count. Exact on any number of workers.
        """

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
        """Write into `folder`, a checkpoint's `model/`, below a name of its own. `model` has full weights, on
        one process, in eval mode, and stays as it is.
        """
