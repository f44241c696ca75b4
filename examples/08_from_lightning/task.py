"""Handwritten digits through a narrow, noisy code (Alemi et al. 2016): `before.py` as a task."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC

from raystack.task import Progress, Signature, TensorSpec

TEST_EVERY, RARE = 5, (3, 8)


class Bottleneck(nn.Module):
    """Image -> mean and log variance of a code -> scores. The code is drawn in training."""

    def __init__(self, width: int, code: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(width * 16, 2 * code),
        )
        self.head = nn.Linear(code, 10)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.encoder(image.unsqueeze(1)).chunk(2, dim=1)
        noise = torch.randn_like(mean) * (log_variance / 2).exp() if self.training else 0.0
        return self.head(mean + noise), mean, log_variance


class Samples(TensorDataset):
    """Every fifth image is kept for the test. Two digits are rare in training, and drawn more often."""

    def __init__(self, *, test: bool) -> None:
        digits = load_digits()
        image = torch.tensor(digits.images / 16, dtype=torch.float32)
        digit = torch.tensor(digits.target)
        kept = torch.arange(len(digit)) % TEST_EVERY == 0
        rare = torch.isin(digit, torch.tensor(RARE)) & (torch.arange(len(digit)) % 4 > 0)
        chosen = kept if test else ~kept & ~rare
        super().__init__(image[chosen], digit[chosen])
        self.weights = (1.0 / torch.bincount(digit[chosen])[digit[chosen]]).tolist()


class Digits:
    signature = Signature(
        inputs=(TensorSpec("image", "float32", (-1, 8, 8)),),
        outputs=(TensorSpec("probability", "float32", (-1, 10)),),
    )

    def __init__(self, width: int = 32, code: int = 12, beta: float = 1e-3) -> None:
        self.width, self.code, self.beta = width, code, beta

    def model(self) -> nn.Module:
        return Bottleneck(self.width, self.code)

    def train_data(self) -> Samples:
        return Samples(test=False)

    def eval_data(self) -> Samples:
        return Samples(test=True)

    def loss(
        self, model: nn.Module, batch: list[Tensor], progress: Progress
    ) -> tuple[Tensor, dict[str, Tensor]]:
        image, digit = batch
        scores, mean, log_variance = model(image)
        entropy = F.cross_entropy(scores, digit)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        # The code is squeezed little by little, over the first half of the training.
        beta = self.beta * min(1.0, 2 * progress.fraction)
        return entropy + beta * kl, {"entropy": entropy, "kl": kl}

    def meters(self) -> Mapping[str, Any]:
        return {"accuracy": MulticlassAccuracy(10, average="micro"), "auroc": MulticlassAUROC(10)}

    def metrics(self, model: nn.Module, batch: list[Tensor]) -> Mapping[str, Any]:
        image, digit = batch
        scores, _, _ = model(image)
        loss = F.cross_entropy(scores, digit, reduction="none")
        return {"loss": loss, "accuracy": (scores, digit), "auroc": (scores.softmax(1), digit)}

    def predict(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {"probability": model(inputs["image"])[0].softmax(1)}
