"""Before: which module of Python's library is a docstring from? With the Trainer of transformers.

python hf_trainer.py FOLDER
"""

import ast
import sys
import sysconfig
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import f1_score
from torch import nn
from torch.utils.data import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

MODULES = ("asyncio", "email", "tkinter", "unittest")
LONGEST, TEST_EVERY = 96, 5


class Docstrings(Dataset):
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

    def __getitem__(self, index: int) -> dict:
        text, label = self.samples[index]
        return {"input_ids": [byte + 1 for byte in text], "labels": label}


def collate(samples: list[dict]) -> dict:
    rows = [torch.tensor(sample["input_ids"]) for sample in samples]
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    labels = torch.tensor([sample["labels"] for sample in samples])
    return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": labels}


def compute_metrics(predictions) -> dict:
    chosen = predictions.predictions.argmax(-1)
    return {
        "accuracy": float((chosen == predictions.label_ids).mean()),
        "f1": f1_score(predictions.label_ids, chosen, average="macro"),
    }


class ShowExample(TrainerCallback):
    """Shows after each evaluation how sure the model is of one docstring."""

    def __init__(self, sample: dict) -> None:
        self.sample = sample

    def on_evaluate(self, args, state, control, model=None, **kwargs) -> None:
        batch = {name: value.to(model.device) for name, value in collate([self.sample]).items()}
        with torch.no_grad():
            sure = model(**batch).logits.softmax(-1)[0].tolist()
        print(state.global_step, dict(zip(MODULES, np.round(sure, 2), strict=True)))


class GroupedTrainer(Trainer):
    """A tenth of the rate for the embeddings, no weight decay for biases and norms."""

    def create_optimizer(self, model=None):
        if self.optimizer is None:
            args, groups = self.args, {}
            for name, parameter in self.model.named_parameters():
                rate = args.learning_rate * (0.1 if "embeddings" in name else 1.0)
                decay = 0.0 if parameter.ndim < 2 else args.weight_decay
                groups.setdefault((rate, decay), []).append(parameter)
            self.optimizer = torch.optim.AdamW(
                [{"params": p, "lr": lr, "weight_decay": wd} for (lr, wd), p in groups.items()],
                betas=(args.adam_beta1, args.adam_beta2),
            )
        return self.optimizer


def main(folder: str) -> None:
    train, test = Docstrings(test=False), Docstrings(test=True)
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=257,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=LONGEST,
        num_labels=len(MODULES),
    )
    args = TrainingArguments(
        output_dir=folder,
        num_train_epochs=12,
        per_device_train_batch_size=32,
        learning_rate=3e-3,
        weight_decay=0.05,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        max_grad_norm=1.0,
        label_smoothing_factor=0.05,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="f1",
        greater_is_better=True,
        logging_steps=10,
        seed=3,
        report_to=["tensorboard"],
        use_cpu=True,
    )
    trainer = GroupedTrainer(
        model=BertForSequenceClassification(config),
        args=args,
        train_dataset=train,
        eval_dataset=test,
        data_collator=collate,
        compute_metrics=compute_metrics,
        callbacks=[EarlyStoppingCallback(early_stopping_patience=4), ShowExample(test[0])],
    )
    trainer.train()
    print(len(train), len(test), trainer.state.global_step, trainer.evaluate())


if __name__ == "__main__":
    main(sys.argv[1])
