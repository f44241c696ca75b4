"""DistributedDataParallel: a full copy of the model on every worker; gradients are averaged during the backward pass."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from raystack.config.training import DDP


class DataParallel:
    """One copy of the model and of the optimizer state per worker; with one worker, the bare model."""

    def __init__(
        self,
        asked: DDP,
        model: nn.Module,
        make_optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        world_size: int,
    ) -> None:
        self.bare = model
        self._ddp = (
            DistributedDataParallel(
                model,
                bucket_cap_mb=asked.bucket_mb,
                find_unused_parameters=asked.find_unused_parameters,
                gradient_as_bucket_view=True,
            )
            if world_size > 1
            else None
        )
        self.module = self._ddp or model
        self._optimizer = make_optimizer(model.parameters())
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def micro_step(self, *, last: bool) -> AbstractContextManager[None]:
        return nullcontext() if last or self._ddp is None else self._ddp.no_sync()

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self, lr: float, clip_norm: float | None, *, want_norm: bool) -> Tensor | None:
        norm: Tensor | None = None
        if clip_norm is not None:
            norm = nn.utils.clip_grad_norm_(self._parameters, clip_norm)
        elif want_norm:
            norm = nn.utils.get_total_norm(parameter.grad for parameter in self._parameters if parameter.grad is not None)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        self._optimizer.zero_grad()
        return norm

    def communication_s(self) -> float | None:
        if self._ddp is None:
            return None
        nanoseconds = self._ddp._get_ddp_logging_data().get("backward_comm_time", 0)
        return nanoseconds / 1e9 if nanoseconds else None

    # DCP takes most of a second to import: the first checkpoint imports it, and not every start.

    def save(self, folder: Path) -> None:
        from torch.distributed.checkpoint.state_dict_saver import save

        with _one_process():
            save(self._state(), checkpoint_id=str(folder), no_dist=True)

    def load(self, folder: Path) -> None:
        from torch.distributed.checkpoint.state_dict import set_state_dict
        from torch.distributed.checkpoint.state_dict_loader import load

        state = self._state()
        with _one_process():
            load(state, checkpoint_id=str(folder), no_dist=True)
        set_state_dict(self.bare, self._optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])

    def _state(self) -> dict[str, Any]:
        from torch.distributed.checkpoint.state_dict import get_state_dict

        model, optimizer = get_state_dict(self.bare, self._optimizer)
        return {"model": model, "optimizer": optimizer}


@contextmanager
def _one_process() -> Iterator[None]:
    """Without a process group DCP warns that it takes the single process which it was told to take."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
        yield
