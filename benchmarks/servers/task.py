"""The same models as a raystack task."""

from collections.abc import Mapping
from typing import Any

from network import CLASSES, SIZES, network
from torch import Tensor, nn

from raystack.task import Signature, TensorSpec


class Served:
    """A model that nobody trains: `name` is of network.SIZES."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.signature = Signature(
            (TensorSpec("x", "float32", (-1, *SIZES[name])),), (TensorSpec("y", "float32", (-1, CLASSES)),)
        )

    def model(self) -> nn.Module:
        return network(self.name)

    def train_data(self) -> list[Any]:
        return []

    def eval_data(self) -> None:
        return None

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        raise NotImplementedError

    def metrics(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        return {}

    def predict(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"y": model(inputs["x"])}
