"""Runs of the task in measured/, without Ray: some stages one after the other, each on one worker or on two.

Run as a script, `python measured_workers.py <folder>` trains the cases of <folder>/stages.json,
`[[workers, {case: [override, ...]}], ...]`, and leaves <folder>/results.json: what each case told.
A case whose name has the form `<run> > ...` goes on with that run; an override `stop_at=N` stops it
after step N, with a checkpoint. As in strategy_workers.py all processes are forks of one.
"""

import gc
import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from strategy_workers import import_what_zero_needs
from torch.multiprocessing.spawn import start_processes

from raystack.code.archive import pack
from raystack.config import load
from raystack.errors import PausedError, RaystackError
from raystack.events import EndedEarly, Evaluated, Event, Saved, Stepped, Warned
from raystack.plan import TrainPlan, plan_training
from raystack.training.graceful_stop import GracefulStop
from raystack.training.loop import WorkerSpec, train
from raystack.training.watchdog.hang import Orders
from raystack.training.watchdog.heartbeat import HeartbeatSender
from raystack.training.world import World

CONFIG = Path(__file__).with_name("measured") / "config.yaml"
Stages = list[tuple[int, dict[str, list[str]]]]
Told = dict[str, Any]
"""What a case told: steps, evaluations, saved, ended, warnings, error."""


def planned(folder: Path, case: str, workers: int, overrides: list[str]) -> TrainPlan:
    run = case.partition(" > ")[0].replace(" ", "-")
    place = [f"experiment.storage={folder}", f"resources.workers={workers if workers > 1 else 'inline'}"]
    return plan_training(load(CONFIG, [*place, *overrides]), run)


def run(folder: Path, world: World, case: str, overrides: list[str]) -> Told:
    """Train one case on this worker, and return what it told."""
    told: Told = {"steps": {}, "evaluations": [], "saved": [], "ended": None, "warnings": [], "error": None}
    stops = [int(each.removeprefix("stop_at=")) for each in overrides if each.startswith("stop_at=")]
    graceful_stop = GracefulStop(world)
    if world.size > 1:
        dist.distributed_c10d._get_default_store().delete_key("raystack/stop")

    def tell(event: Event) -> None:
        match event:
            case Stepped():
                told["steps"][event.step] = dict(event.metrics)
                if event.step + 1 in stops:  # obeyed at the end of the next step
                    graceful_stop.requested = "terminate"
            case Evaluated():
                told["evaluations"].append([event.step, event.number, dict(event.metrics)])
            case Saved():
                told["saved"].append(event.step)
            case EndedEarly():
                told["ended"] = [event.step, event.reason]
            case Warned():
                told["warnings"].append(event.text)

    try:
        plan = planned(folder, case, world.size, [each for each in overrides if "stop_at=" not in each])
        assert plan.config.task.folder is not None
        beats = HeartbeatSender(
            lambda heartbeat: Orders(), attempt=1, rank=world.rank, world=world.size, node="", folder=None
        )
        spec = WorkerSpec(
            plan, pack(plan.config.task.folder), token=case.replace(" ", "")[-30:].replace(">", "")
        )
        finished = train(spec, world, tell, graceful_stop, beats)
        told |= {"step": finished.step, "chosen": finished.chosen, "reason": finished.ended_early}
    except PausedError:
        assert stops
    except RaystackError as error:
        told |= {"error": str(error), "kind": type(error).__name__, "trace": error.trace}
    return told


def trained(folder: Path, stages: Stages, timeout: float = 200) -> dict[str, Told]:
    """Train all stages in processes of their own; return what each case told on rank 0."""
    (folder / "stages.json").write_text(json.dumps(stages))
    command = [sys.executable, __file__, str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    assert ran.returncode == 0, ran.stderr[-5000:]
    results: dict[str, Told] = json.loads((folder / "results.json").read_text())
    return results


def worker(rank: int, folder: Path, number: int) -> None:
    workers, cases = json.loads((folder / "stages.json").read_text())[number]
    if workers > 1:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder}/rendezvous-{number}",
            rank=rank,
            world_size=workers,
            timeout=timedelta(seconds=60),
        )
    world = World(rank, workers, torch.device("cpu"), attempt=number)
    told = {case: run(folder, world, case, overrides) for case, overrides in cases.items()}
    (folder / f"told-{number}-{rank}.json").write_text(json.dumps(told))
    if workers > 1:
        dist.destroy_process_group()


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    stages: Stages = json.loads((folder / "stages.json").read_text())
    if "strategy=zero" in json.dumps(stages):
        import_what_zero_needs()
    gc.freeze()  # DeepSpeed collects garbage at every start, and need not look through what was imported
    results: dict[str, Told] = {}
    for number, (workers, _) in enumerate(stages):
        start_processes(worker, (folder, number), nprocs=workers, start_method="fork")
        results |= json.loads((folder / f"told-{number}-0.json").read_text())
    (folder / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
