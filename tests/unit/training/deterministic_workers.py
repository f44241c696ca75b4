"""Trains the model of `strategy_workers` twice under every strategy on two workers, with deterministic
algorithms, and leaves <folder>/twice.json, `{strategy: [[[loss, norm], ...], [...]]}`.

Run as a script: `python deterministic_workers.py <folder>`.
"""

import gc
import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from strategy_workers import STRATEGIES, WORKERS, Record, built, import_what_zero_needs, planned, train
from torch.multiprocessing.spawn import start_processes

from raystack.training.determinism import deterministic
from raystack.training.world import World

STEPS = 6


def once(world: World, name: str) -> list[Record]:
    plan = planned(name, world)
    with deterministic(plan.training.model_copy(update={"deterministic": True})):
        assert torch.are_deterministic_algorithms_enabled()
        return [*train(plan, built(plan, world), world, range(STEPS))]


def worker(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=WORKERS)
    world = World(rank, WORKERS, torch.device("cpu"))
    records = {name: [once(world, name), once(world, name)] for name in STRATEGIES}
    if rank == 0:
        (folder / "twice.json").write_text(json.dumps(records))
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    import_what_zero_needs()
    gc.freeze()
    start_processes(worker, (Path(sys.argv[1]),), nprocs=WORKERS, start_method="fork")
