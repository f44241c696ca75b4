"""Read and write the full weights of a `model/` folder, in safetensors."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from raystack.checkpoint.extra_state import Extra, load_extra_state, resize_buffers
from raystack.checkpoint.model import EXTRA_STATE, WEIGHTS, ModelSpec, Parameter, read_spec, read_task
from raystack.code.loading import make_model
from raystack.errors import Problem, ServingError
from raystack.task import Task


def write_weights(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write full weights, under the names of `describe_parameters`, into the existing `folder`."""
    save_file(dict(tensors), str(folder / WEIGHTS), metadata={"format": "pt"})


def write_extra(folder: Path, extra: Extra) -> None:
    """Write the extra state of a model's modules into the existing `folder`."""
    (folder / EXTRA_STATE).write_bytes(extra.to_bytes())


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
    module = load_weights(make_model(task, restored=True), folder)
    return task, module.to(device).eval(), spec


def load_weights(module: nn.Module, folder: Path) -> nn.Module:
    """Load the weights and the extra state of `folder` into a new `module`, and return it.

    Raises ServingError, with a name, if it does not have just what is there.
    """
    try:
        _load(module, load_file(str(folder / WEIGHTS)))
        if (folder / EXTRA_STATE).is_file():
            load_extra_state(module, Extra.from_bytes((folder / EXTRA_STATE).read_bytes()).modules)
    except (OSError, RuntimeError, AttributeError, SafetensorError) as error:
        raise ServingError(
            Problem(
                str(folder / WEIGHTS),
                rule="the weights do not fit the model that the task builds",
                remedy=" ".join(str(error).split()),
            )
        ) from None
    return module


def _load(module: nn.Module, stored: Mapping[str, Tensor]) -> None:
    learned = dict(module.named_parameters(remove_duplicate=False))
    buffers = {
        name: Parameter(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for name, tensor in stored.items()
        if name not in learned
    }
    resize_buffers(module, buffers)
    state = {
        name: value
        for name, value in module.state_dict(keep_vars=True).items()
        if isinstance(value, Tensor) and not name.endswith("_extra_state")
    }
    # A tensor with several names is stored under one of them.
    there = {id(state[name]) for name in stored if name in state}
    missing = sorted(name for name, value in state.items() if id(value) not in there)
    unknown = sorted(stored.keys() - state.keys())
    if missing or unknown:
        raise RuntimeError(
            "; ".join(
                f"{what}: {', '.join(names)}"
                for what, names in (("missing", missing), ("unknown", unknown))
                if names
            )
        )
    module.load_state_dict(dict(stored), strict=False)
