"""Which module of Python's library is a docstring from? `before.py` as a task."""

import ast
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification

from raystack.task import Signature, TensorSpec

MODULES = ("asyncio", "email", "tkinter", "unittest")
LONGEST, TEST_EVERY = 96, 5


class Samples(Dataset):
    """The bytes of a docstring, shifted by one because 0 pads, and the number of its module."""

    def __init__(self, *, test: bool) -> None:
        samples = []
        for label, module in enumerate(MODULES):
            for file in sorted(Path(sysconfig.get_path("stdlib"), module).glob("**/*.py")):
                if "test" in file.parts:
                    continue
                for node in ast.walk(ast.parse(file.read_text())):
                    if not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                        continue
                    text = (ast.get_docstring(node) or "").encode()[:LONGEST]
                    if len(text) >= 12:
                        samples.append((text, label))
        self.samples = [s for i, s in enumerate(samples) if (i % TEST_EVERY == 0) == test]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        text, label = self.samples[index]
        return torch.tensor([byte + 1 for byte in text]), label


class Docstrings:
    signature = Signature(
        inputs=(TensorSpec("ids", "int64", (-1, LONGEST)),),
        outputs=(TensorSpec("probability", "float32", (-1, len(MODULES))),),
    )

    def model(self) -> nn.Module:
        config = BertConfig(
            vocab_size=257,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            max_position_embeddings=LONGEST,
            num_labels=len(MODULES),
        )
        return BertForSequenceClassification(config)

    def train_data(self) -> Samples:
        return Samples(test=False)

    def eval_data(self) -> Samples:
        return Samples(test=True)

    def collate(self, samples: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
        ids = nn.utils.rnn.pad_sequence([ids for ids, _ in samples], batch_first=True)
        return ids, torch.tensor([label for _, label in samples])

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        ids, labels = batch
        return F.cross_entropy(scores(model, ids), labels, label_smoothing=0.05)

    def metrics(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Mapping[str, Tensor]:
        return {}

    def outputs(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Mapping[str, Tensor]:
        ids, labels = batch
        return {"chosen": scores(model, ids).argmax(1), "labels": labels}

    def summarize(self, outputs: Mapping[str, Tensor]) -> Mapping[str, float]:
        chosen, labels = outputs["chosen"], outputs["labels"]
        return {
            "accuracy": float((chosen == labels).float().mean()),
            "f1": f1_score(labels, chosen, average="macro"),
        }

    def predict(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {"probability": scores(model, inputs["ids"]).softmax(1)}

    def demonstrate(self, model: nn.Module) -> str:
        ids, _ = Samples(test=True)[0]
        sure = scores(model, ids.unsqueeze(0)).softmax(1)[0].tolist()
        return ", ".join(f"{name} {value:.2f}" for name, value in zip(MODULES, sure, strict=True))


def scores(model: nn.Module, ids: Tensor) -> Tensor:
    return model(input_ids=ids, attention_mask=(ids > 0).long()).logits
