"""Read and write the full weights of a `model/` folder, in safetensors."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_model, save_file
from torch import Tensor, nn

from raystack.checkpoint.model import WEIGHTS, ModelSpec, read_spec, read_task
from raystack.errors import Problem, ServingError
from raystack.task import Task


def write_weights(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write full weights, under the names of `describe_parameters`, into the existing `folder`."""
    save_file(dict(tensors), str(folder / WEIGHTS), metadata={"format": "pt"})


def read_model(folder: Path, device: str = "cpu") -> tuple[Task, nn.Module, ModelSpec]:
    """Build the task and its model from `folder`, and load the weights.

    Returns the model in eval mode on `device`. Raises ServingError if weights are missing or do not fit it.
    """
    spec = read_spec(folder)
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
    return task, module.to(device).eval(), spec
