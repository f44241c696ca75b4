"""Memory of a model, measured without training it.

In: a RunConfig. Out: a ModelProfile, for `raystack.plan.memory`. The task's own loss runs forward and
backward on fake tensors, which have shapes and types but no memory, so a model that fits no machine can be
measured. Every storage that an operator makes counts for as long as it lives. If the task's code needs
values, which fake tensors do not have, a small batch is run for real.

Scratch memory inside an operator and torch.compile are not measured. `profile_subprocess` runs it in a
process of its own, because a task may keep tensors in its module.
"""

import os
import pickle
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from heapq import nlargest
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import get_gradient_edge
from torch.utils._pytree import tree_map_only

from raystack.code.loading import blame, call, load, make_model
from raystack.config import RunConfig
from raystack.config.optimizer import Adafactor, Muon
from raystack.config.strategy import FSDP
from raystack.config.training import Training
from raystack.errors import ConfigError, Problem, RaystackError
from raystack.plan.footprint import ModelProfile, Pass, Strategy
from raystack.task import Collates, HasBlocks, HasLengths, HasObjectives, MapDataset, Progress, Task
from raystack.training.data import open_train_data
from raystack.training.data.kinds import streams
from raystack.training.data.sources import samples_at
from raystack.training.data.structure import collate as collated
from raystack.training.data.token_budget import costliest
from raystack.training.freeze import freeze
from raystack.training.groups import settings_of
from raystack.training.losses import bound, parts
from raystack.training.profile.allocations import Allocations, FusedAttention, device_rounding
from raystack.training.recompute import recompute
from raystack.training.strategy.units import units

SAMPLES = 64
"""Number of different samples in a batch; a larger batch repeats them."""
REAL_MICROS = (1, 2)
"""Micro batches of a real run; the others are extrapolated."""
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
BEFORE = Progress(0, 1, 0.0, 0.0)
"""The progress that a loss is given, of which nothing is done."""


def measure(config: RunConfig, micros: Sequence[int]) -> ModelProfile:
    """Measure passes of `micros` samples; raise ConfigError, with the user's line, if the task fails."""
    task = load(config.task)
    samples = _passes_of(task, config)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as fake:
            return _Probe(task, config, samples).measure(
                micros, lambda batch: tree_map_only(Tensor, fake.from_tensor, batch)
            )
    except ConfigError:
        raise
    except Exception as error:
        # Anything that fake tensors cannot do. A mistake of the task's own is raised again below.
        why = f"{type(error).__name__} at {blame(error, config.task.folder)}"
    try:
        # A new task: the first may have kept fake tensors.
        sizes = REAL_MICROS if config.training.batch.micro_tokens is None else micros
        return replace(
            _Probe(load(config.task), config, samples).measure(sizes, lambda batch: batch),
            how="real",
            why=why,
        )
    except ConfigError:
        raise
    except Exception as error:
        remedy = f"see {blame(error, config.task.folder)}"
        raise ConfigError(
            Problem("task: loss", rule=f"the task raised: {type(error).__name__}: {error}", remedy=remedy)
        ) from error


@dataclass(frozen=True)
class _Probe:
    """A task, its config and the samples to measure it on."""

    task: Task
    config: RunConfig
    samples: Sequence[Sequence[Any]]
    """Samples to make passes of: several lists where a pass is all of one, by `micro_tokens`."""

    def measure(self, micros: Sequence[int], prepare: Callable[[Any], Any]) -> ModelProfile:
        """Build the model and run a pass of each size; `prepare` converts a real batch for the pass."""
        training, folder = self.config.training, self.config.task.folder
        torch.manual_seed(self.config.experiment.seed)
        model: nn.Module = call("model", partial(make_model, self.task, restored=False), folder=folder)
        freeze(model, training.freeze)
        blocks = list(self.task.blocks(model)) if isinstance(self.task, HasBlocks) else []
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
        sizes = ModelProfile(
            trainable=_elements(trainable),
            frozen=_elements(frozen),
            trainable_bytes=sum(parameter.nbytes for parameter in trainable),
            frozen_bytes=sum(parameter.nbytes for parameter in frozen),
            buffer_bytes=sum(buffer.nbytes for buffer in model.buffers()),
            units=tuple(
                _elements(unit.parameters()) for unit in units(_fsdp(training.strategy), model, blocks)
            ),
            largest=max((parameter.numel() for parameter in trainable), default=0),
            passes=(),
            low_passes=(),
            how="fake",
            state=_state(training, model),
        )
        if training.gradient_checkpointing:
            recompute(blocks)
        passes = tuple(self._costliest(model, size, prepare) for size in micros)
        if training.precision == "fp32":
            return replace(sizes, passes=passes, low_passes=passes)
        _cast(model, DTYPES[training.precision])
        model.register_forward_hook(lambda module, args, output: tree_map_only(Tensor, _as_float32, output))
        return replace(
            sizes,
            passes=passes,
            low_passes=tuple(self._costliest(model, size, prepare) for size in micros),
        )

    def _costliest(self, model: nn.Module, micro: int, prepare: Callable[[Any], Any]) -> Pass:
        """Return what a pass of size `micro` takes at most."""
        if self.config.training.batch.micro_tokens is None:
            (samples,) = self.samples
            chosen = [samples[index % len(samples)] for index in range(micro)]
            return self._pass(model, micro, chosen, prepare)
        taken = [self._pass(model, micro, samples, prepare) for samples in self.samples]
        return Pass(
            micro,
            max(one.activations for one in taken),
            max(one.peak for one in taken),
            max(one.peak_with_gradients for one in taken),
        )

    def _pass(
        self, model: nn.Module, micro: int, samples: Sequence[Any], prepare: Callable[[Any], Any]
    ) -> Pass:
        """Run forward and backward on a batch of `samples`, as the loop does."""
        on_gpu = self.config.resources.gpus_per_worker > 0
        precision = self.config.training.precision
        collate = self.task.collate if isinstance(self.task, Collates) else collated
        batch = prepare(
            call(
                "collate",
                collate,
                list(samples),
                folder=None,
            )
        )
        model.train()
        model.zero_grad()
        parameters = list(model.parameters())
        known = [*parameters, *model.buffers()]
        autocast = torch.autocast("cpu", DTYPES.get(precision), enabled=precision in DTYPES)
        with FusedAttention(on_gpu), Allocations(known, device_rounding(on_gpu)) as allocations:
            handles = [
                one.register_post_accumulate_grad_hook(allocations.finished)
                for one in parameters
                if one.requires_grad
            ]
            allocations.add(batch)
            with autocast:
                loss = _loss(self.task, model, batch)
            activations = allocations.live
            # Not of the tensor itself: FusedAttention would be off in it, also where blocks are recomputed.
            torch.autograd.backward(get_gradient_edge(loss), torch.ones_like(loss))
            for handle in handles:
                handle.remove()
        model.zero_grad()
        return Pass(micro, activations, allocations.peak, allocations.peak_with_gradients)


def _passes_of(task: Task, config: RunConfig) -> list[list[Any]]:
    """Return the samples of each of the costliest passes by tokens; else one list to make passes of."""
    if (tokens := config.training.batch.micro_tokens) is None:
        return [samples_of(task, config)]
    folder = config.task.folder
    data = open_train_data(call("train_data", task.train_data, folder=folder), config.training)
    passes = costliest(cast(HasLengths, data).lengths, tokens)
    return [
        call("train_data", samples_at, cast(MapDataset, data), indices, folder=folder) for indices in passes
    ]


def _loss(task: Task, model: nn.Module, batch: Any) -> Tensor:
    """Return the loss of a batch, or the sum of several objectives' losses, which is more to hold."""
    if not isinstance(task, HasObjectives):
        return parts(bound(task, lambda: BEFORE)(model, batch)).total
    functions = [bound(one, lambda: BEFORE) for one in task.objectives(model).values()]
    return torch.stack([parts(function(model, batch)).total for function in functions]).sum()


def samples_of(task: Task, config: RunConfig) -> list[Any]:
    """Return up to SAMPLES of the training data: the longest if lengths are known, else evenly spread.

    Of a stream they are the first.
    """
    folder = config.task.folder
    data = open_train_data(call("train_data", task.train_data, folder=folder), config.training)
    samples: list[Any]
    if streams(data):
        samples = call("train_data", lambda: list(islice(data.stream(0), SAMPLES)), folder=folder)
        return samples
    by_index = cast(MapDataset, data)
    count = min(len(by_index), SAMPLES)
    if isinstance(data, HasLengths):
        indices = nlargest(count, range(len(by_index)), key=data.lengths.__getitem__)
    else:
        indices = [number * len(by_index) // count for number in range(count)]
    samples = call("train_data", samples_at, by_index, indices, folder=folder)
    return samples


def _fsdp(strategy: Strategy) -> FSDP:
    """Return FSDP as configured, or by default for the comparison."""
    return strategy if isinstance(strategy, FSDP) else FSDP(kind="fsdp")


def _state(training: Training, model: nn.Module) -> int | None:
    """Return the numbers in the optimizer's state, where they depend on shapes."""
    trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
    match training.optimizer:
        case Adafactor():
            # By row and by column, over the last two dimensions.
            return sum(
                one.numel() // one.shape[-1] + one.numel() // one.shape[-2] if one.dim() > 1 else one.numel()
                for one in trained.values()
            )
        case Muon():
            settings = settings_of(training, model, [], {})
            return sum(one.numel() * (1 + settings[name].by_adamw) for name, one in trained.items())
    return None


def _cast(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast a model in place; tied parameters stay tied."""
    # model.to(dtype) does not work on fake parameters that have had gradients.
    made: dict[Tensor, Tensor] = {}
    for module in model.modules():
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if not tensor.is_floating_point():
                continue
            if tensor not in made:
                low = tensor.detach().to(dtype)
                made[tensor] = (
                    nn.Parameter(low, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else low
                )
            setattr(module, name, made[tensor])


def _elements(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def _as_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def main() -> None:
    """Answer `profile_subprocess.measure`: a config on stdin, a ModelProfile or an error on stdout."""
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the task prints must not mix with the answer
    config, micros = pickle.load(sys.stdin.buffer)
    result: ModelProfile | RaystackError
    try:
        result = measure(config, micros)
    except RaystackError as error:
        result = error
    with answer:
        pickle.dump(result, answer)


if __name__ == "__main__":
    main()
