"""Before: handwritten digits through a narrow, noisy code (Alemi et al. 2016), with Lightning.

python lightning_module.py FOLDER
"""

import sys

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import (
    EarlyStopping,
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
)
from lightning.pytorch.loggers import TensorBoardLogger
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC

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


class DigitsData(L.LightningDataModule):
    """Every fifth image is kept for the test. Two digits are rare in training, and drawn more often."""

    def setup(self, stage: str) -> None:
        digits = load_digits()
        image = torch.tensor(digits.images / 16, dtype=torch.float32)
        digit = torch.tensor(digits.target)
        test = torch.arange(len(digit)) % TEST_EVERY == 0
        rare = torch.isin(digit, torch.tensor(RARE)) & (torch.arange(len(digit)) % 4 > 0)
        self.train, self.test = ~test & ~rare, test
        self.image, self.digit = image, digit

    def train_dataloader(self) -> DataLoader:
        digit = self.digit[self.train]
        weights = 1.0 / torch.bincount(digit)[digit]
        sampler = WeightedRandomSampler(weights.tolist(), len(digit))
        return DataLoader(TensorDataset(self.image[self.train], digit), batch_size=64, sampler=sampler)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(TensorDataset(self.image[self.test], self.digit[self.test]), batch_size=64)


class DigitsModule(L.LightningModule):
    def __init__(self, width: int = 32, code: int = 12, beta: float = 1e-3, lr: float = 1e-2) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.model = Bottleneck(width, code)
        self.accuracy = MulticlassAccuracy(10, average="micro")
        self.auroc = MulticlassAUROC(10)

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        image, digit = batch
        scores, mean, log_variance = self.model(image)
        entropy = F.cross_entropy(scores, digit)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        # The code is squeezed little by little, over the first half of the training.
        done = self.global_step / self.trainer.estimated_stepping_batches
        beta = self.hparams.beta * min(1.0, 2 * done)
        self.log_dict({"train/entropy": entropy, "train/kl": kl})
        return entropy + beta * kl

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        image, digit = batch
        scores, _, _ = self.model(image)
        self.accuracy.update(scores, digit)
        self.auroc.update(scores.softmax(1), digit)
        self.log("eval/loss", F.cross_entropy(scores, digit), on_epoch=True)
        self.log("eval/accuracy", self.accuracy)
        self.log("eval/auroc", self.auroc)

    def configure_optimizers(self) -> dict:
        head = {"params": self.model.head.parameters(), "lr": self.hparams.lr / 2, "weight_decay": 0.0}
        encoder = {"params": self.model.encoder.parameters(), "lr": self.hparams.lr}
        optimizer = torch.optim.AdamW([encoder, head], weight_decay=0.01)
        rates = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=[group["lr"] for group in optimizer.param_groups],
            total_steps=int(self.trainer.estimated_stepping_batches),
            pct_start=0.3,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rates, "interval": "step"}}


def main(folder: str) -> None:
    L.seed_everything(3)
    best = ModelCheckpoint(monitor="eval/accuracy", mode="max", save_last=True)
    trainer = L.Trainer(
        max_epochs=30,
        accelerator="cpu",
        gradient_clip_val=1.0,
        callbacks=[
            EarlyStopping("eval/accuracy", mode="max", patience=8),
            EMAWeightAveraging(decay=0.99),
            LearningRateMonitor(),
            best,
        ],
        logger=TensorBoardLogger(folder),
        log_every_n_steps=10,
        default_root_dir=folder,
        enable_progress_bar=False,
    )
    module, data = DigitsModule(), DigitsData()
    trainer.fit(module, data)
    print(trainer.global_step, best.best_model_path)
    trainer.validate(module, data, ckpt_path="best")


if __name__ == "__main__":
    main(sys.argv[1])
