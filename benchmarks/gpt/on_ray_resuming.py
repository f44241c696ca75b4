"""Bare Ray Train that goes on after a failure, as its documentation has it. `python on_ray_resuming.py
settings.json`.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from by_hand import LOG_EVERY, batches, rate, read, start
from ray.train.torch import TorchConfig, TorchTrainer
from torch.nn.parallel import DistributedDataParallel
from wrapped import make_optimizer, stepping

FILE = "state.pt"


def worker(settings: dict[str, Any]) -> None:
    """What each Ray Train worker runs: from the last checkpoint if there is one."""
    rank = ray.train.get_context().get_world_rank()
    task, model = start(settings)
    optimizer = make_optimizer(model, settings)
    first = 0
    if (checkpoint := ray.train.get_checkpoint()) is not None:
        with checkpoint.as_directory() as folder:
            state = torch.load(Path(folder, FILE), weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    ddp = DistributedDataParallel(model, gradient_as_bucket_view=True)
    update = stepping(model, optimizer, settings)
    for step, batch in enumerate(batches(task, rank, settings, first), first):
        loss = task.loss(ddp, batch)
        loss.backward()
        update(rate(step, settings))
        done = step + 1
        if done % LOG_EVERY == 0:
            loss.item()
        if done % settings["save_every"] == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": done}
            _report({"loss": loss.item()}, state if rank == 0 else None)


def _report(metrics: dict[str, float], state: dict[str, Any] | None) -> None:
    """Every worker reports; rank 0 brings the checkpoint."""
    if state is None:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.save(state, Path(folder, FILE))
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


if __name__ == "__main__":
    settings = read(sys.argv[1])
    ray.init(num_cpus=settings["workers"])
    TorchTrainer(
        worker,
        train_loop_config=settings,
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ray.train.ScalingConfig(num_workers=settings["workers"]),
        run_config=ray.train.RunConfig(
            storage_path=settings["storage"],
            failure_config=ray.train.FailureConfig(max_failures=-1),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
        ),
    ).fit()
    ray.shutdown()
