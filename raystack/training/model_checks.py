"""Models that a strategy, the optimizer or a checkpoint cannot have, refused before they are built in.

In: the task's model, on the CPU. Out: nothing, or a ConfigError that names the parameter and what to do.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from safetensors.torch import save as write_tensors
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from raystack.checkpoint.extra_state import check_extra_state
from raystack.config.optimizer import SGD, Own
from raystack.config.strategy import DDP
from raystack.config.training import Training
from raystack.errors import ConfigError, Problem


def check_model(model: nn.Module, training: Training) -> None:
    """Raise ConfigError if it is certain that `model` cannot be trained or kept."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in tensors:
        if is_lazy(tensor):
            remedy = "call it on a batch in the task's model()"
            raise _refused(f"'{name}' of a lazy module has no shape yet", remedy)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise _refused(
            "no parameter requires a gradient, so there is nothing to train", "unfreeze a part of it"
        )
    for name, tensor in model.named_parameters():
        if not tensor.is_contiguous():
            remedy = "make the weights contiguous; the input alone may have another layout (channels_last)"
            raise _refused(f"a checkpoint holds contiguous weights, and '{name}' is not", remedy)
    for name, tensor in tensors:
        if not _can_be_kept(tensor):
            raise _refused(f"'{name}' is of a type that safetensors cannot hold", got=_kind(tensor))
    _check_overlaps(model)
    check_extra_state(model)
    _check_complex(model, training)
    _check_sparse(model, training)


def sparse_parameters(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters whose gradients are sparse, by name."""
    for path, module in model.named_modules():
        if (
            isinstance(module, (nn.Embedding, nn.EmbeddingBag))
            and module.sparse
            and module.weight.requires_grad
        ):
            yield f"{path}.weight".lstrip("."), module.weight


def _check_overlaps(model: nn.Module) -> None:
    """Refuse parameters that are views of one another: only the same object is trained as one."""
    ranges = sorted(
        (tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes, name)
        for name, tensor in model.named_parameters()
        if tensor.numel()
    )
    for (_, end, name), (start, _, other) in pairwise(ranges):
        if start < end:
            rule = f"'{name}' and '{other}' share memory, and would be trained and stored as two"
            raise _refused(rule, "use one nn.Parameter in both places, or clone one")


def _check_complex(model: nn.Module, training: Training) -> None:
    found = next((name for name, parameter in model.named_parameters() if parameter.is_complex()), None)
    if found is not None and not isinstance(training.strategy, DDP):
        raise _other_strategy(training, f"complex weights, such as '{found}', cannot be split")


def _check_sparse(model: nn.Module, training: Training) -> None:
    found = next((name for name, _ in sparse_parameters(model)), None)
    if found is None:
        return
    if not isinstance(training.strategy, DDP):
        raise _other_strategy(training, f"sparse gradients, such as those of '{found}', cannot be split")
    optimizer = training.optimizer
    if isinstance(optimizer, Own):
        return  # it may be torch's SparseAdam
    if not isinstance(optimizer, SGD) or optimizer.momentum or optimizer.weight_decay:
        rule = f"the gradients of '{found}' are sparse, which only plain SGD takes"
        remedy = "set {kind: sgd, momentum: 0, weight_decay: 0}, or sparse=False in the model"
        raise ConfigError(Problem("training.optimizer", rule=rule, got=optimizer.kind, remedy=remedy))


def _can_be_kept(tensor: Tensor) -> bool:
    if tensor.layout is not torch.strided or tensor.is_quantized:
        return False
    try:
        write_tensors({"one": torch.empty(1, dtype=tensor.dtype)})
    except (KeyError, RuntimeError):
        return False
    return True


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype if tensor.layout is torch.strided else tensor.layout)


def _other_strategy(training: Training, rule: str) -> ConfigError:
    kind = training.strategy.kind
    return ConfigError(Problem("training.strategy.kind", rule=rule, got=kind, remedy="use strategy=ddp"))


def _refused(rule: str, remedy: str | None = None, got: str | None = None) -> ConfigError:
    return ConfigError(Problem("task: model", rule=rule, got=got, remedy=remedy))
