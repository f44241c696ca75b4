"""The same training as Accelerate's users write it: `accelerate launch on_accelerate.py settings.json`."""

import sys

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from by_hand import LOG_EVERY, rate, read, start
from torch.utils.data import DataLoader
from wrapped import make_optimizer


def main(path: str) -> None:
    """Train with the settings in the file at `path`."""
    settings = read(path)
    accelerator = Accelerator(
        cpu=True, kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)]
    )
    task, bare = start(settings)
    order = np.load(
        settings["order"]
    )  # [steps, world, micro]; Accelerate deals whole batches to the workers in turn
    loader = DataLoader(task.train_data(), batch_size=order.shape[2], sampler=order.ravel().tolist())
    model, optimizer, loader = accelerator.prepare(bare, make_optimizer(bare, settings), loader)
    steps = settings["steps"]
    for step, batch in enumerate(loader):
        loss = task.loss(model, batch)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), settings["clip_norm"])
        for group in optimizer.param_groups:
            group["lr"] = rate(step, settings)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % LOG_EVERY == 0 or step + 1 == steps:
            loss.item()
    if accelerator.is_main_process:
        torch.save({"model": bare.state_dict(), "optimizer": optimizer.state_dict()}, settings["state"])
    accelerator.wait_for_everyone()
    accelerator.end_training()


if __name__ == "__main__":
    main(sys.argv[1])
