"""Prediction with a model by its URI, for notebooks, scripts, MLflow and replicas; needs no Ray."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import ValidationError

from raystack import registry
from raystack.checkpoint.checksums import verify_model
from raystack.checkpoint.model import ModelSpec
from raystack.checkpoint.signing import verify_signature
from raystack.checkpoint.weights import read_model
from raystack.code.loading import blame
from raystack.config.defaults import default_storage
from raystack.config.sign import Verify
from raystack.config.tracking import Tracking
from raystack.errors import ConfigError, Problem, RaystackError, ServingError
from raystack.plan.training import embedded_store
from raystack.serving.exchange import answered, given, to_numpy, torch_dtype
from raystack.serving.protocol import Contract, RequestError
from raystack.serving.protocol.tensors import NUMPY, Array
from raystack.task import HasBlocks, Signature, Task, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

FREE_SIZES = (1, 64)
"""Sizes for the free dimensions of the signature in the warm-up pass, tried until the model accepts one.

Some models need more than one pixel or token.
"""


PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Types in which autocast computes, by `serving.precision`."""


class Predictor:
    """A model in memory, ready to predict. Loading it runs its task's code, which is trusted.

    Predictor.load("models:/digits@champion").predict({"image": images})
    """

    def __init__(self, task: Task, module: "nn.Module", card: ModelSpec, device: str) -> None:
        self._task, self._module, self._device = task, module, device
        self.card = card
        self._dtypes = {spec.name: torch_dtype(spec) for spec in card.signature.outputs}
        self._folder = _folder_of(card)
        self._free = FREE_SIZES[0]
        self._autocast: torch.dtype | None = None
        self._contract = Contract(card.run_id, str(card.step), card.signature)

    def __repr__(self) -> str:
        inputs = ", ".join(f"{spec.name} {spec.dtype}{list(spec.shape)}" for spec in self.signature.inputs)
        return (
            f"Predictor({self.card.entry!r}, run {self.card.run_id}, step {self.card.step}; takes {inputs})"
        )

    @classmethod
    def load(
        cls,
        model: str | Path,
        tracking_uri: str | None = None,
        *,
        device: str = "cpu",
        threads: int | None = None,
    ) -> "Predictor":
        """Load `models:/name@alias`, `models:/name/version`, or a checkpoint's folder or URL.

        `tracking_uri` is MLflow's. None is the store in the default storage, RAYSTACK_STORAGE or ~/raystack.
        Raises ConfigError if there is no such model, and the errors of `read`.
        """
        tracking = Tracking(kind="off")
        if str(model).startswith("models:"):
            tracking = _tracking(tracking_uri or embedded_store(default_storage())[0])
        return cls.read(registry.resolve(str(model), tracking), device, threads)

    @classmethod
    def read(
        cls,
        folder: Path,
        device: str = "cpu",
        threads: int | None = None,
        *,
        precision: str = "fp32",
        compiled: bool = False,
        verify: Verify | None = None,
    ) -> "Predictor":
        """Read the `model/` folder, compare its files with their checksums, and run one pass to check it.

        `threads` sets the compute threads of this process; None leaves them unchanged. `precision`,
        `compiled` and `verify` are those of the config's section `serving`. Raises ServingError if the folder
        holds no model, a file is damaged or not as it was signed, the weights do not fit, the task raises, or
        the outputs do not match the signature.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        try:
            if verify is not None:
                verify_signature(folder, verify)
            verify_model(folder)
            task, module, card = read_model(folder, device)
        except RaystackError as error:
            raise ServingError(error.problems) from error
        except Exception as error:
            raise ServingError(_raised("the task raised while its model was built", error, None)) from error
        predictor = cls(task, module, card, device)
        predictor._autocast = PRECISIONS[precision]
        if compiled:
            predictor._compile()
        predictor._warm_up()
        return predictor

    @property
    def signature(self) -> Signature:
        """Inputs and outputs of `predict`: names, dtypes and shapes."""
        return self.card.signature

    def zeros(self, size: int) -> dict[str, Array]:
        """Return inputs of `size` samples of zeros that the model accepts."""
        return {spec.name: np.repeat(zeros(spec, self._free), size, 0) for spec in self.signature.inputs}

    def predict(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Return the outputs for `inputs`: arrays, tensors or nested lists of shape [batch, ...] by name.

        Numbers are converted to the signature's dtype if they fit. Raises ServingError if an input does not
        match the signature, and the errors of `forward`.
        """
        plain = {
            name: to_numpy(value.detach()) if isinstance(value, torch.Tensor) else value
            for name, value in inputs.items()
        }
        try:
            arrays = self._contract.arrays(plain)
        except RequestError as error:
            raise ServingError(error.problem) from None
        return self.forward(arrays)

    def forward(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs for `inputs` that match the signature, e.g. because the protocol checked them.

        Raises ServingError if the task raises or its outputs do not match the signature.
        """
        with torch.inference_mode():
            values = {name: given(array, self._device) for name, array in inputs.items()}
            try:
                outputs = self._compute(values)
            except Exception as error:
                raise ServingError(_raised("the task raised", error, self._folder)) from error
            self._check_names(outputs)
            batch = len(next(iter(inputs.values())))
            return {spec.name: answered(outputs[spec.name], spec, batch) for spec in self.signature.outputs}

    def _compute(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        if self._autocast is None:
            return self._task.predict(self._module, values)
        with torch.autocast(torch.device(self._device).type, self._autocast):
            outputs = self._task.predict(self._module, values)
        if not isinstance(outputs, Mapping):
            return outputs
        return {name: _as_signed(output, self._dtypes.get(name)) for name, output in outputs.items()}

    def _compile(self) -> None:
        blocks = list(self._task.blocks(self._module)) if isinstance(self._task, HasBlocks) else []
        for module in blocks or [self._module]:
            module.compile()

    def _warm_up(self) -> None:
        free = any(-1 in spec.shape[1:] for spec in self.signature.inputs)
        sizes = FREE_SIZES if free else FREE_SIZES[:1]
        for self._free in sizes:
            try:
                self.forward(self.zeros(1))
                return
            except ServingError:
                if self._free == sizes[-1]:
                    raise

    def _check_names(self, outputs: object) -> None:
        if not isinstance(outputs, Mapping) or outputs.keys() != self._dtypes.keys():
            got = ", ".join(map(repr, outputs)) if isinstance(outputs, Mapping) else type(outputs).__name__
            names = ", ".join(map(repr, self._dtypes))
            raise ServingError(
                Problem(
                    "task: predict", rule=f"the signature says a mapping with the outputs {names}", got=got
                )
            )


def _as_signed(output: "Tensor", dtype: "torch.dtype | None") -> "Tensor":
    """Return a floating point output in the signature's type, which autocast may have changed."""
    if isinstance(output, torch.Tensor) and dtype is not None and output.is_floating_point():
        return output.to(dtype) if dtype.is_floating_point else output
    return output


def zeros(spec: TensorSpec, free: int) -> Array:
    """Return one sample of zeros; `free` is the size of the dimensions that the signature leaves open."""
    shape = [1, *(free if size == -1 else size for size in spec.shape[1:])]
    return np.full(shape, b"", object) if spec.dtype == "bytes" else np.zeros(shape, NUMPY[spec.dtype])


def _tracking(uri: str) -> Tracking:
    try:
        return Tracking(uri=uri)
    except ValidationError as error:
        rule = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(Problem("tracking_uri", rule=rule)) from None


def _folder_of(card: ModelSpec) -> str | None:
    """Return the folder of the user's code, which identifies its frames in a traceback."""
    file: Any = getattr(sys.modules.get(card.entry.partition(":")[0]), "__file__", None)
    return str(Path(file).parent) if file else None


def _raised(rule: str, error: Exception, folder: str | None) -> Problem:
    message = " ".join(str(error).split())
    return Problem(
        "task", rule=f"{rule}: {type(error).__name__}: {message}", remedy=f"see {blame(error, folder)}"
    )
