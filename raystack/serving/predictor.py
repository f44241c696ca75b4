"""A `model/` folder -> predict(arrays). No Ray and no server, so that it can be used and tested alone."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from raystack.checkpoint.model import ModelSpec
from raystack.checkpoint.weights import read_model
from raystack.code.loading import blame
from raystack.errors import Problem, RaystackError, ServingError
from raystack.serving.protocol.tensors import Array
from raystack.task import Signature, Task, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

FREE_SIZES = (1, 64)
"""What a size that the signature leaves free is in the warm-up pass, one after the other until one is
accepted: models may need more than one pixel or token.
"""


class Predictor:
    """A model in memory, ready to answer. Its task is trusted to be the user's; its inputs are checked by the
    protocol.
    """

    def __init__(self, task: Task, module: "nn.Module", card: ModelSpec, device: str) -> None:
        self._task, self._module, self._device = task, module, device
        self.card = card
        self._dtypes = {spec.name: getattr(torch, spec.dtype) for spec in card.signature.outputs}
        self._folder = _folder_of(card)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu", threads: int = 1) -> "Predictor":
        """Read the `model/` folder, use `threads` compute threads in this process, and run one pass to see
        that it works.

        Raises ServingError for a folder that is no model, weights that do not fit, a task that raises, and
        outputs that are not what the signature says.
        """
        torch.set_num_threads(threads)
        try:
            task, module, card = read_model(folder, device)
        except RaystackError as error:
            raise ServingError(error.problems) from error
        except Exception as error:
            raise ServingError(_raised("the task raised while its model was built", error, None)) from error
        predictor = cls(task, module, card, device)
        predictor._warm_up()
        return predictor

    @property
    def signature(self) -> Signature:
        return self.card.signature

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs for `inputs`, both as the signature names and types them; arrays of shape [batch, ...].

        Raises ServingError where the task raises, or answers something else than its signature says.
        """
        with torch.inference_mode():
            tensors = {name: _to_torch(array).to(self._device) for name, array in inputs.items()}
            batch = len(next(iter(tensors.values())))
            try:
                outputs = self._task.predict(self._module, tensors)
            except Exception as error:
                raise ServingError(_raised("the task raised", error, self._folder)) from error
            self._check(outputs, batch)
            return {name: outputs[name].cpu().numpy() for name in self._dtypes}

    def _warm_up(self) -> None:
        free = any(-1 in spec.shape[1:] for spec in self.signature.inputs)
        sizes = FREE_SIZES if free else FREE_SIZES[:1]
        for size in sizes:
            try:
                self.predict({spec.name: _zeros(spec, size) for spec in self.signature.inputs})
                return
            except ServingError:
                if size == sizes[-1]:
                    raise

    def _check(self, outputs: "Mapping[str, Tensor]", batch: int) -> None:
        if not isinstance(outputs, Mapping) or outputs.keys() != self._dtypes.keys():
            got = ", ".join(map(repr, outputs)) if isinstance(outputs, Mapping) else type(outputs).__name__
            names = ", ".join(map(repr, self._dtypes))
            raise ServingError(
                Problem(
                    "task: predict", rule=f"the signature says a mapping with the outputs {names}", got=got
                )
            )
        for spec in self.signature.outputs:
            output = outputs[spec.name]
            if not isinstance(output, torch.Tensor):
                raise self._mismatch(spec, "a tensor", type(output).__name__)
            if output.dtype != self._dtypes[spec.name]:
                raise self._mismatch(spec, spec.dtype, str(output.dtype).removeprefix("torch."))
            wanted = (batch, *spec.shape[1:])
            if output.dim() != len(wanted) or any(
                size not in (-1, got) for size, got in zip(wanted, output.shape, strict=True)
            ):
                raise self._mismatch(
                    spec, f"shape {list(spec.shape)} for {batch} samples", f"shape {list(output.shape)}"
                )

    @staticmethod
    def _mismatch(spec: TensorSpec, wanted: str, got: str) -> ServingError:
        return ServingError(
            Problem(f"task: predict, output '{spec.name}'", rule=f"the signature says {wanted}", got=got)
        )


def _to_torch(array: Array) -> "Tensor":
    """Shares memory where it can; arrays over a request's bytes are read-only, which torch does not know."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _zeros(spec: TensorSpec, free: int) -> Array:
    return np.zeros([1, *(free if size == -1 else size for size in spec.shape[1:])], dtype=spec.dtype)


def _folder_of(card: ModelSpec) -> str | None:
    """The folder of the user's code, to tell its frames from others."""
    file: Any = getattr(sys.modules.get(card.entry.partition(":")[0]), "__file__", None)
    return str(Path(file).parent) if file else None


def _raised(rule: str, error: Exception, folder: str | None) -> Problem:
    message = " ".join(str(error).split())
    return Problem(
        "task", rule=f"{rule}: {type(error).__name__}: {message}", remedy=f"see {blame(error, folder)}"
    )
