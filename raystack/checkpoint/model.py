"""`model/`: all that serving needs, and nothing that has to be unpickled.

model/
  model.json           the card: task, signature, where it came from
  model.safetensors    full weights
  code.zip             the task's folder, unless the task is an installed package
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raystack.config.task import Task as TaskConfig
from raystack.errors import Problem, ServingError
from raystack.task import Signature, Task, load, unpack

if TYPE_CHECKING:
    from torch import nn

CARD, WEIGHTS, CODE = "model.json", "model.safetensors", "code.zip"
FORMAT = 1


@dataclass(frozen=True)
class ModelCard:
    """What a model is, apart from its weights."""

    entry: str
    """`module:name` of its Task."""
    args: Mapping[str, Any]
    """Arguments of the Task; secrets as references."""
    signature: Signature
    run_id: str
    step: int
    metrics: Mapping[str, float]


def write_model(folder: Path, module: "nn.Module", card: ModelCard, code: bytes | None) -> None:
    """Write `model/` into `folder`, which exists. `module` is the bare model, without a strategy's wrapper."""
    from safetensors.torch import save_model

    save_model(module, str(folder / WEIGHTS))
    if code is not None:
        (folder / CODE).write_bytes(code)
    values = {**asdict(card), "signature": card.signature.as_dict(), "format": FORMAT}
    (folder / CARD).write_text(json.dumps(values, indent=2), encoding="utf-8")


def read_card(folder: Path) -> ModelCard:
    """The card of the `model/` folder at `folder`. Raises ServingError if it is not one."""
    try:
        values = json.loads((folder / CARD).read_text(encoding="utf-8"))
        if values.pop("format") != FORMAT:
            raise ServingError(Problem(str(folder / CARD), rule=f"this raystack reads model format {FORMAT}"))
        return ModelCard(**{**values, "signature": Signature.from_dict(values["signature"])})
    except FileNotFoundError:
        raise ServingError(Problem(str(folder), rule=f"this is not a model folder: it has no {CARD}")) from None
    except (ValueError, KeyError, TypeError) as error:
        raise ServingError(Problem(str(folder / CARD), rule=f"the model card cannot be read: {error}")) from None


def read_model(folder: Path, device: str = "cpu") -> tuple[Task, "nn.Module", ModelCard]:
    """Build the task and its model from `folder` and load the weights; the model comes back in eval mode on `device`."""
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    card = read_card(folder)
    code = folder / CODE
    task = load(TaskConfig(entry=card.entry, args=dict(card.args), folder=unpack(code.read_bytes()) if code.is_file() else None))
    module = task.model()
    try:
        load_model(module, str(folder / WEIGHTS))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ServingError(
            Problem(str(folder / WEIGHTS), rule="the weights do not fit the model that the task builds", remedy=str(error).splitlines()[0])
        ) from None
    return task, module.to(device).eval(), card
