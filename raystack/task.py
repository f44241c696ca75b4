"""The contract between raystack and the user's code.

A Task defines what is trained and how it predicts, without Ray, a strategy or a device. Any object with these
methods is a Task: there is no class to inherit from.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Dtype = Literal[
    "bool",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "bfloat16",
    "float32",
    "float64",
    "bytes",
]


@dataclass(frozen=True)
class TensorSpec:
    """One named input or output of `predict`."""

    name: str
    dtype: Dtype
    """Element type: NumPy's name, or "bytes" for texts and other bytes of any length.

    Values of "bytes" are in NumPy arrays of objects, all others in tensors. `predict` takes bytes, and may
    return str, too.
    """
    shape: tuple[int, ...]
    """Sizes, with -1 for any size; the first is the batch size and always -1."""

    def __post_init__(self) -> None:
        if not self.shape or self.shape[0] != -1:
            raise ValueError(f"the shape of '{self.name}' starts with -1, the batch; got {self.shape}")
        if self.dtype not in get_args(Dtype):
            known = ", ".join(get_args(Dtype))
            raise ValueError(f"the dtype of '{self.name}' is one of {known}; got {self.dtype!r}")


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of `predict`: what a client sends and what it receives."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def as_dict(self) -> dict[str, list[dict[str, Any]]]:
        """Return the signature as JSON values, for `from_dict`."""
        return {
            side: [{"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)} for spec in specs]
            for side, specs in (("inputs", self.inputs), ("outputs", self.outputs))
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Sequence[Mapping[str, Any]]]) -> "Signature":
        """Build a signature from what `as_dict` returned. Raises KeyError if a key is missing."""

        def specs(side: str) -> tuple[TensorSpec, ...]:
            return tuple(
                TensorSpec(spec["name"], spec["dtype"], tuple(spec["shape"])) for spec in values[side]
            )

        return cls(specs("inputs"), specs("outputs"))


class MapDataset(Sized, Protocol):
    """A dataset with a length and samples by index, such as a map-style `torch.utils.data.Dataset`."""

    def __getitem__(self, index: int, /) -> Any:
        """Return sample `index`, the same one at every call."""


@runtime_checkable
class HasLengths(Protocol):
    """A map-style dataset that knows the length of each sample.

    For `training.data.bucket` and `training.batch.micro_tokens`.
    """

    @property
    def lengths(self) -> Sequence[int]:
        """Length of each sample, by index, in any unit, such as tokens."""


@runtime_checkable
class HasWeights(Protocol):
    """A map-style dataset with a weight for each sample, for `training.data.weighted`."""

    @property
    def weights(self) -> Sequence[float]:
        """Weight of each sample, by index: how often it is drawn, relative to the others; 0 for never."""


@runtime_checkable
class StreamDataset(Protocol):
    """Samples that come one after another, always the same ones in the same order.

    `__len__`, if there is one, is the number of samples in an epoch. A stream without it has to last as
    long as the training, which then needs `training.steps`.
    """

    def stream(self, start: int, /) -> Iterator[Any]:
        """Return an iterator over the samples from number `start` on, counted from 0.

        If the iterator has a method `skip(count)`, it is called to skip other workers' samples; otherwise
        they are read and dropped.
        """


@runtime_checkable
class RayDataset(Protocol):
    """The part of `ray.data.Dataset` that is used. Its rows, as dicts, are the samples."""

    @property
    def context(self) -> Any:
        """Its DataContext, in which the blocks are set to keep their order."""

    def count(self) -> int:
        """Return the number of rows."""

    def iter_batches(
        self, *, prefetch_batches: int, batch_size: int | None, batch_format: str | None
    ) -> Iterable[Mapping[str, Any]]:
        """Yield columns [rows, ...] by name, block by block, with `batch_size=None` and format `numpy`."""


Dataset = MapDataset | StreamDataset | RayDataset | Iterable[Any]
"""Data of a Task. An iterable, such as torch's IterableDataset, is used like a StreamDataset, but resuming
reads it from the beginning.
"""


@dataclass(frozen=True)
class Progress:
    """How far a run has come: the same on every worker, and after a resume."""

    step: int
    """Number of optimizer steps that are done."""
    steps: int
    """Number of steps of the whole run."""
    epoch: float | None
    """Samples that are done divided by those of an epoch; None for a stream without a length."""
    fraction: float
    """The part of the steps that is done, from 0 to 1."""


class Task(Protocol):
    """The methods that a user writes.

    `batch` is a batch as torch's default collate function makes it from samples, on the worker's device.
    """

    @property
    def signature(self) -> Signature:
        """Inputs and outputs of `predict`."""

    def model(self) -> "nn.Module":
        """Return a new model with fresh weights, on the CPU. Random numbers are seeded before it.

        Where the method has a keyword `restored`, it is True if stored weights will replace all parameters
        and persistent buffers: when a run is resumed, or begins with all weights of `training.init_from`, and
        when a model is exported or served. A pretrained file need not be read then. The model has to be built
        as it is otherwise, with everything that is not stored, such as buffers that are not persistent.
        """

    def train_data(self) -> Dataset:
        """Return the training samples."""

    def eval_data(self) -> "Dataset | Mapping[str, Dataset] | None":
        """Return the evaluation samples, which have a length, or None.

        A mapping has several sets by name: the metrics of each are called `eval/<set>/<metric>`.
        """

    def loss(self, model: "nn.Module", batch: Any) -> "Tensor | tuple[Any, Any]":
        """Return the mean loss over the samples of `batch`, as a scalar with a gradient.

        Where samples have different numbers of terms, such as tokens, return a pair: the sum over all terms
        of the batch, with a gradient, and their number. The loss of a step is then the sum over all its
        batches and workers divided by the number of all terms, however the step is split.

        With either, a mapping of more values may be returned: `loss, {"kl": kl}`, `(sum, count), {"kl": kl}`.
        Each is a mean over the samples or a pair (sum, count) of its own, and logged as `train/kl`. The names
        are the same for every batch.

        A third parameter, or one with the name `progress`, is given the Progress of the run.

        Call `model(...)` and not a part of it: DDP and FSDP work through the model's own forward pass.
        """

    def metrics(self, model: "nn.Module", batch: Any) -> "Mapping[str, Tensor | tuple[Tensor, Tensor]]":
        """Return the metrics of `batch` by name, for an evaluation.

        A tensor of shape [samples] is averaged over all samples of the eval data. A pair (sums, counts) gives
        total sum / total count. Both are exact on any number of workers.
        """

    def predict(self, model: "nn.Module", inputs: Mapping[str, "Tensor"]) -> Mapping[str, "Tensor"]:
        """Return the outputs for `inputs`, both as in the signature; in eval mode, without gradients.

        Inputs and outputs of dtype "bytes" are NumPy arrays of objects in place of tensors.
        """


@runtime_checkable
class HasBlocks(Protocol):
    """A Task that names the repeated blocks of its model, for gradient checkpointing."""

    def blocks(self, model: "nn.Module") -> "Iterable[nn.Module]":
        """Return the blocks whose activations are recomputed in the backward pass."""
        ...


@runtime_checkable
class Collates(Protocol):
    """A Task with a collate function of its own."""

    def collate(self, samples: list[Any]) -> Any:
        """Return the batch of a list of samples."""


@runtime_checkable
class CountsTokens(Protocol):
    """A Task whose throughput is reported in tokens."""

    def tokens(self, batch: Any) -> int:
        """Return the number of tokens in `batch`."""
        ...


@runtime_checkable
class Meters(Protocol):
    """A Task with metrics that are no means: objects of torchmetrics, over the whole of each eval set."""

    def meters(self) -> "Mapping[str, Any]":
        """Return torchmetrics.Metric objects by name, once for a run.

        For such a name `metrics` returns the arguments of its `update`: a tuple, a mapping of keywords, or
        one value. The states of all workers are merged, and `compute` returns one number.
        """
        ...


@runtime_checkable
class Summarizes(Protocol):
    """A Task with metrics that are functions of all outputs of an eval set, such as one of scikit-learn."""

    def outputs(self, model: "nn.Module", batch: Any) -> "Mapping[str, Tensor]":
        """Return tensors [samples, ...] of `batch` by name, with a forward pass of its own."""
        ...

    def summarize(self, outputs: "Mapping[str, Tensor]") -> Mapping[str, float]:
        """Return metrics of a set from the outputs of all of its samples, in the order of the dataset.

        It is called on worker 0. The tensors are on the CPU, floating point numbers in float32 at least.
        """
        ...


@runtime_checkable
class MakesOptimizer(Protocol):
    """A Task that makes its optimizer, in the place of `training.optimizer`."""

    def optimizer(self, parameters: "list[tuple[str, nn.Parameter]]") -> "torch.optim.Optimizer":
        """Return the optimizer of all `parameters`, the trained ones with their names.

        It may put them into groups. The rates that it comes with are their peaks, which the schedule's factor
        multiplies. It is called more than once, also with small parameters of the same names and dimensions,
        on which the optimizer is tried. Its state is a part of the checkpoints.
        """
        ...


@dataclass(frozen=True)
class Objective:
    """A loss of its own for a part of the model, such as the generator of a GAN."""

    loss: "Callable[..., Tensor | tuple[Any, Any]]"
    """Called and averaged as a task's `loss`: it takes a model and a batch."""
    parameters: "str | Sequence[str] | nn.Module"
    """Patterns for names of the parameters that it trains, or the part of the model that has them."""
    optimizer: "Callable[[list[tuple[str, nn.Parameter]]], torch.optim.Optimizer] | None" = None
    """Makes its optimizer, as a task's `optimizer`; None: `training.optimizer` for its parameters."""
    every: int = 1
    """It is trained in each step whose number, from 0, is a multiple of this."""


@runtime_checkable
class HasObjectives(Protocol):
    """A Task with several objectives, in the place of `loss`; under ddp."""

    def objectives(self, model: "nn.Module") -> Mapping[str, Objective]:
        """Return the objectives by name, in the order of their turns in a step, on the same batches.

        Each trained parameter of `model` is in exactly one. In the turn of an objective only its own get
        gradients, and its update comes before the next turn. `train/loss` is the sum of the losses, and each
        is logged as `train/<name>`.
        """
        ...


@runtime_checkable
class SetsRate(Protocol):
    """A Task with a learning rate schedule of its own, for `training.schedule.kind: task`."""

    def lr_factor(self, step: int, steps: int) -> float:
        """Return the rate of optimizer step `step`, from 0, of `steps`, as a fraction of the peak.

        It depends on nothing else, so that a resumed run goes on as if it had not been interrupted.
        """
        ...


@dataclass(frozen=True)
class HookEvent:
    """A moment between two steps, as a hook of the task sees it on a worker."""

    progress: Progress
    """The steps that are done."""
    rank: int
    workers: int
    model: "nn.Module"
    """The task's own module. Its weights may be split over the workers, and are not to be changed."""


@dataclass(frozen=True)
class StepEvent(HookEvent):
    """The optimizer has made a step."""

    metrics: Mapping[str, float]
    """Metrics by their MLflow names if this step is reported (`training.log_every_steps`); else empty."""


@dataclass(frozen=True)
class EvaluationEvent(HookEvent):
    """The model was evaluated."""

    metrics: Mapping[str, float]
    """Metrics by their MLflow names, the same on every worker."""


@dataclass(frozen=True)
class CheckpointEvent(HookEvent):
    """A checkpoint was begun, of the state as it is now; it is written and published in the background."""

    url: str
    """Where it is going to be."""


@runtime_checkable
class OnStep(Protocol):
    """A Task with a hook that is called on every worker after each step, before its checkpoint."""

    def on_step(self, event: StepEvent) -> None:
        """Do what belongs between two steps; all of it adds to the time of a step."""


@runtime_checkable
class OnEvaluate(Protocol):
    """A Task with a hook that is called on every worker after each evaluation."""

    def on_evaluate(self, event: EvaluationEvent) -> None:
        """Look at the metrics."""


@runtime_checkable
class OnCheckpoint(Protocol):
    """A Task with a hook that is called on every worker when a checkpoint was begun."""

    def on_checkpoint(self, event: CheckpointEvent) -> None:
        """Do what belongs to the checkpoint, such as writing a file of the task's own elsewhere."""


@runtime_checkable
class Demonstrates(Protocol):
    """A Task that shows at the end of a run what the trained model can do."""

    def demonstrate(self, model: "nn.Module") -> str:
        """Return a text to show, such as generated samples."""
        ...


@runtime_checkable
class Exports(Protocol):
    """A Task that also exports its model in the format of another library."""

    def export(self, model: "nn.Module", folder: Path) -> None:
        """Write files into `folder`, a checkpoint's `model/`, below a name of the task's own.

        `model` has full weights in one process, is in eval mode, and must not be changed.
        """
