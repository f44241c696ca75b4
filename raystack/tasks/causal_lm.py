"""Fine-tune a causal language model from a local Hugging Face folder, in full or by LoRA, on a JSON Lines
file.

    task: {entry: "raystack.tasks.causal_lm:CausalLM", args: {model: /models/llama, data: /data/train.jsonl}}

Every token that is learned in a step has the same weight: `loss` is a sum over them, and their number. So
neither packing nor micro batches nor the number of workers change anything.
"""

import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt, ValidationError
from torch import Tensor, nn

from raystack.checkpoint.model import HF
from raystack.config.section import Section
from raystack.errors import ConfigError, Problem
from raystack.task import Signature, TensorSpec
from raystack.tasks import huggingface, text
from raystack.tasks.packing import one_by_one, pack

IGNORED = -100
"""Label of a token that is not learned; cross_entropy ignores it by default."""

ROUND_TO = 8
"""Unpacked rows are padded to a multiple of this, which GPUs multiply faster."""


class Lora(Section):
    """Low-rank adapters (Hu et al. 2021); all other weights are frozen."""

    r: PositiveInt = 8
    """Rank."""

    alpha: PositiveFloat = 16.0
    """The adapters' product is multiplied by alpha / r."""

    dropout: float = Field(default=0.0, ge=0, lt=1)
    """On the adapters' input, in training."""

    target_modules: list[str] | None = None
    """Names of the linear modules that get one, e.g. [q_proj, v_proj]. Left out: what peft knows for the
    architecture.
    """


class Options(Section):
    """The task's args."""

    model: str
    """Local folder of a transformers causal language model with its tokenizer. It has to be there on every
    worker.
    """

    data: str
    """JSON Lines file to train on. It has to be there on every worker, with the same content."""

    eval_data: str | None = None
    """JSON Lines file to evaluate on. Left out: no evaluation."""

    format: text.Format = "chat"
    """What a line is. `chat`: {"messages": [...]}, through the tokenizer's chat template. `text`: {"text":
    ...} or {"prompt": ..., "completion": ...}.
    """

    context: PositiveInt = 1024
    """Tokens of a row. A longer text is cut at its end, and a warning counts the cut ones."""

    packing: bool = True
    """Put several short texts into one row of `context` tokens; no text sees another. A sample of the
    training is then a row: training.batch counts rows. Which texts share a row is the same in every epoch.
    """

    mask_prompt: bool = True
    """Learn only the assistant's messages, or the completion. False: every token."""

    lora: Lora | None = None
    """Train adapters only. Left out: every weight."""

    merge: bool = True
    """With lora: export the model with the adapters merged into it. False: the adapter alone."""


class Tokenized(TypedDict):
    """A batch; each tensor is int64 [rows, time]."""

    ids: Tensor
    positions: Tensor
    labels: Tensor
    """The token number at each learned place, IGNORED elsewhere."""
    tokens: int
    """Tokens in the batch, without padding."""


class CausalLM:
    """The task. Its arguments are those of `Options`. Raises ConfigError for arguments that cannot be met."""

    def __init__(self, **args: Any) -> None:
        self.options = _options(args)
        self.folder = Path(self.options.model).expanduser()
        huggingface.check_folder(self.folder)
        self._files = {
            name: _file(name, path)
            for name, path in (("data", self.options.data), ("eval_data", self.options.eval_data))
            if path
        }

    @property
    def signature(self) -> Signature:
        """Return the signature: tokens, padded on either side, to the scores of the next token."""
        scores = TensorSpec("logits", "float32", (-1, huggingface.vocabulary(self.folder)))
        return Signature(
            (TensorSpec("input_ids", "int64", (-1, -1)), TensorSpec("attention_mask", "int64", (-1, -1))),
            (scores,),
        )

    @cached_property
    def tokenizer(self) -> Any:
        """Return the model's tokenizer.

        Raises ConfigError if the data needs a chat template and it has none.
        """
        tokenizer = huggingface.load_tokenizer(self.folder)
        if self.options.format == "chat" and tokenizer.chat_template is None:
            remedy = "add chat_template.jinja to the model's folder, or use task.args.format=text"
            raise ConfigError(
                Problem(
                    "task.args.format", rule="the tokenizer has no chat template", got="chat", remedy=remedy
                )
            )
        return tokenizer

    def model(self, *, restored: bool = False) -> nn.Module:
        """Return the folder's model, with new adapters if they are configured.

        `restored` is that of `raystack.task.Task.model`: the folder's weights are not read.
        """
        model = (huggingface.new_model if restored else huggingface.load_model)(self.folder)
        if self.options.packing and not huggingface.keeps_packed_apart(model):
            rule = f"{type(model).__name__} lets packed texts see each other"
            raise ConfigError(
                Problem("task.args.packing", rule=rule, got="true", remedy="set task.args.packing=false")
            )
        if self.options.lora is not None:
            model = huggingface.with_lora(model, **self.options.lora.model_dump())
        return model  # type: ignore[no-any-return]

    def blocks(self, model: nn.Module) -> list[nn.Module]:
        """Return the decoder layers."""
        return huggingface.blocks(model)

    def train_data(self) -> text.Texts:
        """Return the rows of `data`."""
        return self._rows("data")

    def eval_data(self) -> text.Texts | None:
        """Return the rows of `eval_data`, packed like those of the training."""
        return self._rows("eval_data") if "eval_data" in self._files else None

    def collate(self, rows: list[text.Row]) -> Tokenized:
        """Pad at the end: to `context` where rows are packed, else to the longest row."""
        longest = -(-max(len(row.ids) for row in rows) // ROUND_TO) * ROUND_TO
        width = self.options.context if self.options.packing else min(longest, self.options.context)
        shape = (len(rows), width)
        ids, labels = np.zeros(shape, np.int64), np.full(shape, IGNORED, np.int64)
        positions = np.tile(np.arange(width), (len(rows), 1))
        for index, row in enumerate(rows):
            size = len(row.ids)
            ids[index, :size] = row.ids
            labels[index, :size] = np.where(row.learned, row.ids, IGNORED)
            positions[index, :size] = row.positions
            # Padding goes on where the last text ends: it comes after all that is learned, so nothing sees
            # it.
            positions[index, size:] = row.positions[-1] + 1 + np.arange(width - size)
        tokens = sum(len(row.ids) for row in rows)
        return Tokenized(
            ids=torch.from_numpy(ids),
            positions=torch.from_numpy(positions),
            labels=torch.from_numpy(labels),
            tokens=tokens,
        )

    def tokens(self, batch: Tokenized) -> int:
        """Return the number of tokens without padding."""
        return batch["tokens"]

    def loss(self, model: nn.Module, batch: Tokenized) -> tuple[Tensor, Tensor]:
        """Return the cross entropy in nats, summed over the learned tokens, and their number."""
        losses = self._losses(huggingface.scores(model, batch["ids"], batch["positions"]), batch, "sum")
        return losses, (batch["labels"][:, 1:] != IGNORED).sum()

    def metrics(self, model: nn.Module, batch: Tokenized) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Return metrics per learned token: `loss` in nats, `bits` and `accuracy`.

        The perplexity is 2 to the power of `bits`; `accuracy` is that of the likeliest token.
        """
        logits = huggingface.scores(model, batch["ids"], batch["positions"])
        losses = self._losses(logits, batch, "none")  # [rows * (time - 1)]
        labels = batch["labels"][:, 1:]
        learned = (labels != IGNORED).sum()
        right = (logits[:, :-1].argmax(-1) == labels).sum()
        return {
            "loss": (losses, learned),
            "bits": (losses / math.log(2), learned),
            "accuracy": (right, learned),
        }

    def predict(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the scores of the token after the last one in the mask.

        A row with an empty mask is used whole.
        """
        mask = inputs["attention_mask"]
        mask = torch.where(mask.any(1, keepdim=True), mask, torch.ones_like(mask))
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        logits = model(
            input_ids=inputs["input_ids"], attention_mask=mask, position_ids=positions, use_cache=False
        ).logits
        last = (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(1)
        return {"logits": logits[torch.arange(len(last), device=last.device), last].float()}

    def demonstrate(self, model: nn.Module) -> str:
        """Return the model's continuation of the first prompt of `eval_data`, or of `data`.

        At most 60 tokens, each the likeliest.
        """
        where, line = next(text.lines(self._files.get("eval_data", self._files["data"])))
        prompt = text.prompt_of(where, line, self.options.format, self.tokenizer)[-self.options.context :]
        end = self.tokenizer.eos_token_id
        device = next(model.parameters()).device
        answer = huggingface.generate(
            model, torch.tensor(prompt, device=device), 60, pad=end if end is not None else 0
        )
        return f"{self.tokenizer.decode(prompt)} -> {self.tokenizer.decode(answer, skip_special_tokens=True)}"

    def export(self, model: nn.Module, folder: Path) -> None:
        """Write `folder`/hf, which transformers and vLLM can load.

        It is the whole model, or with `merge: false` the adapter.
        """
        target = folder / HF
        target.mkdir(exist_ok=True)
        save = (
            huggingface.save_model
            if self.options.lora is None or self.options.merge
            else huggingface.save_adapter
        )
        save(model, self.tokenizer, target)

    def _losses(self, logits: Tensor, batch: Tokenized, reduction: str) -> Tensor:
        return F.cross_entropy(
            logits[:, :-1].flatten(0, 1),
            batch["labels"][:, 1:].flatten(),
            ignore_index=IGNORED,
            reduction=reduction,
        )

    def _rows(self, name: str) -> text.Texts:
        options = self.options
        tokens = text.read(
            self._files[name], options.format, self.tokenizer, options.context, options.mask_prompt
        )
        return text.Texts(
            tokens,
            pack(tokens.lengths, options.context) if options.packing else one_by_one(len(tokens.lengths)),
        )


def _options(args: Mapping[str, Any]) -> Options:
    try:
        return Options(**args)
    except ValidationError as error:
        raise ConfigError(
            Problem(
                ".".join(["task.args", *map(str, found["loc"])]), rule=found["msg"], got=repr(found["input"])
            )
            for found in error.errors()
        ) from None


def _file(name: str, path: str) -> Path:
    file = Path(path).expanduser()
    if not file.is_file():
        raise ConfigError(Problem(f"task.args.{name}", rule="there is no such file", got=str(file)))
    return file
