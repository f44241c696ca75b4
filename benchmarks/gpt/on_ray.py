"""Bare Ray Train: the loop written by hand, inside a TorchTrainer. `python on_ray.py settings.json`."""

import sys
from typing import Any

import ray
import ray.train
from by_hand import read, train
from ray.train.torch import TorchConfig, TorchTrainer


def worker(settings: dict[str, Any]) -> None:
    """What each Ray Train worker runs."""
    context = ray.train.get_context()
    train(context.get_world_rank(), context.get_world_size(), settings)


if __name__ == "__main__":
    settings = read(sys.argv[1])
    ray.init(num_cpus=settings["workers"])
    TorchTrainer(
        worker,
        train_loop_config=settings,
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ray.train.ScalingConfig(num_workers=settings["workers"]),
        run_config=ray.train.RunConfig(storage_path=settings["storage"]),
    ).fit()
    ray.shutdown()
