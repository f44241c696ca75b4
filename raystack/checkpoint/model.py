"""`model/`: all that serving needs, and nothing that has to be unpickled.

model/
  model.json           the card: task, signature, parameters, where it came from
  model.safetensors    full weights; a checkpoint has them once they were exported
  example.safetensors  one sample of the inputs, out of the eval data; of the checkpoint that a run ends with
  code.zip             the task's folder, unless the task is an installed package
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raystack.code.archive import unpack
from raystack.code.loading import load
from raystack.config.task import Task as TaskConfig
from raystack.errors import Problem, ServingError
from raystack.task import Signature, Task

if TYPE_CHECKING:
    from torch import nn

CARD, WEIGHTS, CODE = "model.json", "model.safetensors", "code.zip"
FORMAT = 1


@dataclass(frozen=True)
class Parameter:
    """What a parameter or persistent buffer is, apart from its values."""

    shape: tuple[int, ...]
    """Of the whole tensor."""
    dtype: str
    """torch's name of the element type, e.g. `float32`."""


@dataclass(frozen=True)
class ModelSpec:
    """What a model is, apart from its weights."""

    entry: str
    """`module:name` of its Task."""
    args: Mapping[str, Any]
    """Arguments of the Task; secrets as references."""
    signature: Signature
    """Inputs and outputs of `predict`."""
    run_id: str
    """The run that trained it."""
    step: int
    """Optimizer steps done."""
    metrics: Mapping[str, float]
    """Of an evaluation of exactly these weights; empty if there was none."""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    """What the weights are, by name: the training state has them flattened."""


def describe_parameters(module: "nn.Module") -> dict[str, Parameter]:
    """Every parameter and persistent buffer, before a strategy spreads `module`. Of tied ones the first name
    stands for all.
    """
    state = module.state_dict()
    named = [
        *module.named_parameters(),
        *((name, buffer) for name, buffer in module.named_buffers() if name in state),
    ]
    return {
        name: Parameter(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for name, tensor in named
    }


def write_spec(folder: Path, card: ModelSpec, code: bytes | None) -> None:
    """Write `model/` without its weights into `folder`, which exists. `code` is the task's folder as an
    archive.
    """
    if code is not None:
        (folder / CODE).write_bytes(code)
    values = {**asdict(card), "signature": card.signature.as_dict(), "format": FORMAT}
    (folder / CARD).write_text(json.dumps(values, indent=2), encoding="utf-8")


def read_spec(folder: Path) -> ModelSpec:
    """The card of the `model/` folder at `folder`. Raises ServingError if it is not one."""
    try:
        values = json.loads((folder / CARD).read_text(encoding="utf-8"))
        if values.pop("format") != FORMAT:
            raise ServingError(Problem(str(folder / CARD), rule=f"this raystack reads model format {FORMAT}"))
        parameters = {
            name: Parameter(tuple(parameter["shape"]), parameter["dtype"])
            for name, parameter in values.get("parameters", {}).items()
        }
        return ModelSpec(
            **{**values, "signature": Signature.from_dict(values["signature"]), "parameters": parameters}
        )
    except FileNotFoundError:
        raise ServingError(
            Problem(str(folder), rule=f"this is not a model folder: it has no {CARD}")
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise ServingError(
            Problem(str(folder / CARD), rule=f"the model card cannot be read: {error}")
        ) from None


def read_task(folder: Path) -> Task:
    """The task of the `model/` folder at `folder`, built as it was for the training."""
    card, code = read_spec(folder), folder / CODE
    return load(
        TaskConfig(
            entry=card.entry,
            args=dict(card.args),
            folder=unpack(code.read_bytes()) if code.is_file() else None,
        )
    )
