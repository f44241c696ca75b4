"""A byte-level GPT on the text of Python's standard library: it learns to write something that looks like
Python.
"""

import sysconfig
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raystack.task import Signature, TensorSpec

VOCABULARY = 256  # one token per byte
PROMPT = "def "


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:  # [batch, time, width]
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1)
        )
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(
            q, k, v, is_causal=True, dropout_p=dropout
        )  # [batch, heads, time, width/heads]
        return self.out(y.transpose(1, 2).flatten(-2))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads, dropout)
        self.norm2, self.mlp = (
            nn.LayerNorm(width),
            nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    """Decoder-only transformer with learned positions; input and output embeddings are one matrix."""

    def __init__(self, context: int, width: int, depth: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.token = nn.Embedding(VOCABULARY, width)
        self.position = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        self.head.weight = self.token.weight
        nn.init.normal_(self.token.weight, std=0.02)
        nn.init.normal_(self.position.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:  # [batch, time] -> [batch, time, vocabulary]
        x = self.token(tokens) + self.position.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Windows:
    """Windows of `context` + 1 bytes, one after another."""

    def __init__(self, text: Tensor, context: int) -> None:
        self.text, self.context = text, context

    def __len__(self) -> int:
        return (len(self.text) - 1) // self.context

    def __getitem__(self, index: int) -> Tensor:
        start = index * self.context
        return self.text[start : start + self.context + 1].long()


class LanguageModel:
    """Next-byte prediction. A hundredth of the text is kept for the test."""

    def __init__(
        self,
        context: int = 128,
        width: int = 192,
        depth: int = 4,
        heads: int = 6,
        dropout: float = 0.1,
        megabytes: float = 2.0,
    ) -> None:
        self.context, self.megabytes = context, megabytes
        self.shape = (context, width, depth, heads, dropout)
        self.signature = Signature(
            inputs=(TensorSpec("tokens", "int64", (-1, -1)),),
            outputs=(TensorSpec("next", "float32", (-1, VOCABULARY)),),
        )

    def model(self) -> GPT:
        return GPT(*self.shape)

    def blocks(self, model: GPT) -> Iterable[nn.Module]:
        return model.blocks

    def train_data(self) -> Windows:
        return Windows(self.text[: -len(self.text) // 100], self.context)

    def eval_data(self) -> Windows:
        return Windows(self.text[-len(self.text) // 100 :], self.context)

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        return F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())

    def metrics(self, model: nn.Module, batch: Tensor) -> Mapping[str, Tensor]:
        losses = F.cross_entropy(
            model(batch[:, :-1]).transpose(1, 2), batch[:, 1:], reduction="none"
        )  # [batch, time]
        return {"loss": losses.mean(1), "bits_per_byte": losses.mean(1) / torch.log(torch.tensor(2.0))}

    def tokens(self, batch: Tensor) -> int:
        return batch.shape[0] * self.context

    def predict(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {"next": model(inputs["tokens"][:, -self.context :])[:, -1].softmax(-1)}

    def demonstrate(self, model: nn.Module) -> str:
        """A sample of 200 bytes at temperature 0.8."""
        generator = torch.Generator().manual_seed(0)
        tokens = torch.tensor([list(PROMPT.encode())], device=next(model.parameters()).device)
        for _ in range(200):
            scores = model(tokens[:, -self.context :])[0, -1].float().cpu()
            drawn = torch.multinomial((scores / 0.8).softmax(-1), 1, generator=generator)
            tokens = torch.cat([tokens, drawn.to(tokens.device)[None]], dim=1)
        return bytes(tokens[0].tolist()).decode(errors="replace")

    @cached_property
    def text(self) -> Tensor:
        """The first megabytes of the standard library's sources, uint8 [bytes], in the order of their
        names.
        """
        left, parts = int(self.megabytes * 1e6), []
        for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
            parts.append(path.read_bytes()[:left])
            left -= len(parts[-1])
            if left <= 0:
                break
        return torch.frombuffer(bytearray(b"".join(parts)), dtype=torch.uint8)
