"""The task of examples/02_language_model, which notes each step in a file of its process: what is left when
that is killed.
"""

import os
import time
import zlib
from pathlib import Path
from typing import Any, TextIO

from timed import Timed
from torch import Tensor, nn


class Witnessed(Timed):
    """`ledger`: folder of the files, `<pid>.txt`. A line is seconds since 1970 at a call of `loss`, and a
    number that stands for the samples of its batch.
    """

    def __init__(self, ledger: str, **args: Any) -> None:
        super().__init__(record="", steps=0, **args)
        self.ledger = Path(ledger)
        self.page: TextIO | None = None

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        if self.page is None:
            self.page = (self.ledger / f"{os.getpid()}.txt").open("w", buffering=1, encoding="utf-8")
        self.page.write(f"{time.time()} {zlib.crc32(batch.numpy().tobytes())}\n")
        loss: Tensor = self.inner.loss(model, batch)
        return loss
