"""`model/`: everything that serving needs, and nothing that has to be unpickled.

model/
  model.json           the spec: task, signature, parameters, run and step
  metrics.json         metrics of an evaluation of the weights, if there was one
  model.safetensors    full weights; a checkpoint has them once they are exported
  extra_state.safetensors  what get_extra_state of its modules returns, if one has it
  example.safetensors  one sample of the inputs, out of the eval data; of the checkpoint that a run ends with
  statistics.json      what the data of inputs and outputs is like; of the checkpoint that a run ends with
  code.zip             the task's folder, unless the task is an installed package
  checksums.json       the SHA-256 of each of these files, written by the export (`checksums.py`)
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raystack import strict_json
from raystack.code.archive import unpack
from raystack.code.loading import load
from raystack.config.task import Task as TaskConfig
from raystack.errors import Problem, ServingError
from raystack.task import Signature, Task

if TYPE_CHECKING:
    from torch import nn

CARD, METRICS, WEIGHTS, CODE = "model.json", "metrics.json", "model.safetensors", "code.zip"
EXTRA_STATE = "extra_state.safetensors"
HF = "hf"
"""Folder in the model's that transformers and vLLM can load, where the task has exported one."""
FORMAT = 1


@dataclass(frozen=True)
class Parameter:
    """Shape and dtype of a parameter or persistent buffer."""

    shape: tuple[int, ...]
    """Shape of the whole tensor, not of one worker's part."""
    dtype: str
    """torch's name of the element type, e.g. `float32`."""


@dataclass(frozen=True)
class ModelSpec:
    """Description of a model without its weights."""

    entry: str
    """`module:name` of its Task."""
    args: Mapping[str, Any]
    """Arguments of the Task; secrets are references."""
    signature: Signature
    """Inputs and outputs of `predict`."""
    run_id: str
    """The run that trained it."""
    step: int
    """Optimizer steps done."""
    metrics: Mapping[str, float]
    """Metrics of an evaluation of exactly these weights; empty if there was none."""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    """Shapes and dtypes by name, which the training state lacks: it has the weights flattened."""
    averaged: bool = False
    """Whether its weights are the moving averages of the training, `training.ema`."""
    init_from: Mapping[str, Any] | None = None
    """What its run began with: the `source`, its `run_id` and `step`. None for the task's own weights."""


def describe_parameters(module: "nn.Module") -> dict[str, Parameter]:
    """Describe all parameters and persistent buffers of `module`; call it before a strategy shards them.

    Tied parameters appear once, under their first name.
    """
    state = module.state_dict()
    # `state_dict` alone would list tied parameters under each of their names; `named_parameters` does not.
    named = [
        *module.named_parameters(),
        *((name, buffer) for name, buffer in module.named_buffers() if name in state),
    ]
    return {
        name: Parameter(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for name, tensor in named
    }


def write_spec(folder: Path, spec: ModelSpec, code: bytes | None) -> None:
    """Write `model/` without its weights into the existing `folder`; `code` is the task's folder as a zip."""
    if code is not None:
        (folder / CODE).write_bytes(code)
    # Not null, as in metrics: the task is built with these arguments again.
    args = strict_json.tagged(spec.args)
    values = {**asdict(spec), "args": args, "signature": spec.signature.as_dict(), "format": FORMAT}
    (folder / CARD).write_text(strict_json.dumps(values, indent=2), encoding="utf-8")


def write_metrics(folder: Path, metrics: Mapping[str, float]) -> None:
    """Write the metrics of an evaluation of the weights into the existing `folder`."""
    # A file of its own: they come after the checkpoint, whose files are not changed.
    (folder / METRICS).write_text(strict_json.dumps(dict(metrics), indent=2), encoding="utf-8")


def read_spec(folder: Path) -> ModelSpec:
    """Read the spec of the model folder at `folder`. Raises ServingError if it is not one."""
    try:
        values = json.loads((folder / CARD).read_text(encoding="utf-8"))
        if values.pop("format") != FORMAT:
            raise ServingError(Problem(str(folder / CARD), rule=f"this raystack reads model format {FORMAT}"))
        parameters = {
            name: Parameter(tuple(parameter["shape"]), parameter["dtype"])
            for name, parameter in values.get("parameters", {}).items()
        }
        signature = Signature.from_dict(values["signature"])
        measured = folder / METRICS
        metrics = (
            json.loads(measured.read_text(encoding="utf-8")) if measured.is_file() else values["metrics"]
        )
        return ModelSpec(
            **{
                **values,
                "args": strict_json.untagged(values["args"]),
                "signature": signature,
                "metrics": strict_json.numbers(metrics),
                "parameters": parameters,
            }
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
    """Build the task of the model folder at `folder` with the arguments of its training."""
    spec, code = read_spec(folder), folder / CODE
    return load(
        TaskConfig(
            entry=spec.entry,
            args=dict(spec.args),
            folder=unpack(code.read_bytes()) if code.is_file() else None,
        )
    )
