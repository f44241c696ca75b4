"""Handwritten digits: a small convolutional network on scikit-learn's 1,797 scanned images of 8 x 8
pixels.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from raystack.task import Signature, TensorSpec

TEST_EVERY = 5


class Digits:
    """Every fifth image is kept for the test."""

    signature = Signature(
        inputs=(TensorSpec("image", "float32", (-1, 8, 8)),),
        outputs=(TensorSpec("digit", "int64", (-1,)), TensorSpec("probability", "float32", (-1, 10))),
    )

    def __init__(self, width: int = 32) -> None:
        self.width = width

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, self.width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(self.width, 2 * self.width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(2 * self.width * 16, 128),
            nn.ReLU(),
            nn.Linear(128, 10),
        )

    def train_data(self) -> TensorDataset:
        return self._data(test=False)

    def eval_data(self) -> TensorDataset:
        return self._data(test=True)

    def loss(self, model: nn.Module, batch: list[Tensor]) -> Tensor:
        image, digit = batch
        return F.cross_entropy(model(image.unsqueeze(1)), digit)

    def metrics(self, model: nn.Module, batch: list[Tensor]) -> Mapping[str, Tensor]:
        image, digit = batch
        scores = model(image.unsqueeze(1))
        return {
            "loss": F.cross_entropy(scores, digit, reduction="none"),
            "accuracy": (scores.argmax(1) == digit).float(),
        }

    def predict(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        probability = model(inputs["image"].unsqueeze(1)).softmax(1)
        return {"digit": probability.argmax(1), "probability": probability}

    def _data(self, *, test: bool) -> TensorDataset:
        digits = load_digits()
        image = torch.tensor(digits.images / 16, dtype=torch.float32)  # [1797, 8, 8], 0..1
        digit = torch.tensor(digits.target)  # [1797]
        chosen = (torch.arange(len(digit)) % TEST_EVERY == 0) == test
        return TensorDataset(image[chosen], digit[chosen])
