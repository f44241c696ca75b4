"""Full weights in safetensors: of a `model/` folder, and of the module that its task builds."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_model, save_file
from torch import Tensor, nn

from raystack.checkpoint.model import WEIGHTS, ModelSpec, read_spec, read_task
from raystack.errors import Problem, ServingError
from raystack.task import Task


def write_weights(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write full weights, by the names of `describe_parameters`, into `folder`, which exists."""
    save_file(dict(tensors), str(folder / WEIGHTS), metadata={"format": "pt"})


def read_model(folder: Path, device: str = "cpu") -> tuple[Task, nn.Module, ModelSpec]:
    """Build the task and its model from `folder` and load the weights; the model comes back in eval mode on
    `device`.
    """
    card = read_spec(folder)
    if not (folder / WEIGHTS).is_file():
        remedy = f"raystack checkpoint export {folder.parent}"
        raise ServingError(
            Problem(str(folder), rule=f"this model has no weights: it has no {WEIGHTS}", remedy=remedy)
        )
    task = read_task(folder)
    module = task.model()
    try:
        load_model(module, str(folder / WEIGHTS))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ServingError(
            Problem(
                str(folder / WEIGHTS),
                rule="the weights do not fit the model that the task builds",
                remedy=str(error).splitlines()[0],
            )
        ) from None
    return task, module.to(device).eval(), card
