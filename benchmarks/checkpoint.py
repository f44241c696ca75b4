"""How long a checkpoint holds training up: raystack's Saver, torch.save on rank 0, and a blocking DCP save,
of the same state.

Two gloo processes of one thread train a GPT of 29 million parameters with AdamW (345 MB of state), without
Ray, so that both cores are busy. Rounds of equal cycles take turns: some steps after nothing, and after a
checkpoint in each of the three ways. `stalled` is how long the call takes, and what a step waits for the
copy; `in all` is what the cycle takes longer than the one after nothing, with what the write in the
background takes away from the steps. raystack's cycle ends when the checkpoint is published.
"""

import argparse
import json
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from figures import machine, parse, parser, show, spread, write
from running import ROOT, turn, workplace
from torch.multiprocessing.spawn import spawn

from raystack.checkpoint import CheckpointStore, Manifest
from raystack.checkpoint.manifest import describe_files
from raystack.config.optimizer import AdamW
from raystack.config.strategy import DDP
from raystack.config.training import Checkpoint
from raystack.events import Saved
from raystack.training.async_checkpointer import AsyncCheckpointer
from raystack.training.driver.memory import KEEP_PAGES
from raystack.training.optimizer import make_optimizer
from raystack.training.strategy.ddp import DataParallel
from raystack.training.world import World

EXAMPLE = ROOT / "examples" / "02_language_model"
WORKERS, CONTEXT, DEPTH, HEAD = 2, 128, 4, 64
NOTHING, OURS, TORCH, BLOCKING = "no checkpoint", "raystack", "torch.save", "DCP, blocking"
BUDGET = 0.1
"""Of the blocking DCP save."""


def main() -> int:
    """Measure, print the table, write the JSON."""
    arguments = _parse()
    os.environ.update(KEEP_PAGES)  # as raystack's workers on CPUs have it, for all ways
    with workplace(arguments.folder) as folder:
        spawn(_work, (str(folder), arguments), nprocs=WORKERS)
        measured = json.loads((folder / "measured.json").read_text(encoding="utf-8"))
    results = _results(measured, arguments)
    _show(results)
    if arguments.output:
        write(arguments.output, results)
    return 0


def _parse() -> argparse.Namespace:
    options = parser(__doc__, "checkpoint", quick="2 rounds of 3 steps with a small model")
    options.add_argument("--rounds", type=int, help="rounds, of which the first is told apart (6)")
    options.add_argument("--steps", type=int, help="optimizer steps of each cycle (10)")
    options.add_argument("--width", type=int, help="width of the model, a multiple of 64 (768)")
    options.add_argument(
        "--folder", type=Path, help="where to write the checkpoints (the system's temporary folder)"
    )
    full, quick = {"rounds": 6, "steps": 10, "width": 768}, {"rounds": 2, "steps": 3, "width": 128}
    arguments = parse(options, "checkpoint", full, quick)
    if arguments.rounds < 2:
        options.error("--rounds should be 2 at least: the first is told apart")
    return arguments


def _work(rank: int, folder: str, arguments: argparse.Namespace) -> None:
    """One of the processes; rank 0 leaves what it measured in <folder>/measured.json."""
    warnings.filterwarnings(
        "ignore", message=r"`torch\.distributed\.\w+` is deprecated", category=FutureWarning
    )
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=WORKERS)
    bench = _Bench(rank, Path(folder), arguments)
    bench.train(3)
    rounds = [
        {way: bench.cycle(way) for way in turn(list(bench.ways), number)}
        for number in range(arguments.rounds)
    ]
    measured = {"rounds": rounds, "state_bytes": bench.state_bytes(), "sha256_s": bench.sha256_s()}
    if rank == 0:
        (bench.folder / "measured.json").write_text(json.dumps(measured), encoding="utf-8")
    bench.checkpointer.close()
    dist.destroy_process_group()


def _next_token(model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    logits = model(tokens[:, :-1])
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


class _Bench:
    """A training, and the ways to write its state."""

    def __init__(self, rank: int, folder: Path, arguments: argparse.Namespace) -> None:
        sys.path.insert(0, str(EXAMPLE))
        from task import GPT  # type: ignore[import-not-found]

        torch.manual_seed(rank)
        self.folder, self.steps = folder, arguments.steps
        self.world = World(rank, WORKERS, torch.device("cpu"))
        bare = GPT(CONTEXT, arguments.width, DEPTH, arguments.width // HEAD, 0.0)
        self.optimizer = make_optimizer(AdamW(), bare.named_parameters())
        self.strategy = DataParallel(DDP(), "fp32", bare, lambda parameters: self.optimizer, self.world)
        self.store = CheckpointStore(str(folder / "ours"))
        self.checkpointer = AsyncCheckpointer(
            self.store,
            self.world,
            Checkpoint(every_steps=self.steps, keep_last=1),
            lambda manifest, folder: None,
        )
        self.done = 0
        self.waited_s = 0.0
        """In the steps of a cycle, before the optimizer may change what is being copied."""
        self.ways: dict[str, Callable[[], None]] = {
            NOTHING: lambda: None,
            OURS: self._ours,
            TORCH: self._torch,
            BLOCKING: self._blocking,
        }

    def train(self, steps: int) -> None:
        """Some optimizer steps on random tokens."""
        for _ in range(steps):
            tokens = torch.randint(256, (1, CONTEXT + 1))
            with self.strategy.micro_step(last=True):
                self.strategy.backward(self.strategy.loss(_next_token, tokens))
            began = time.perf_counter()
            self.checkpointer.copied()
            self.waited_s += time.perf_counter() - began
            self.strategy.step(1.0, 1.0, want_norm=False)
            self.done += 1

    def cycle(self, way: str) -> dict[str, float]:
        """Write a checkpoint in one way and train on; seconds, of the slowest worker."""
        shutil.rmtree(self.folder / "theirs", ignore_errors=True)
        dist.barrier()
        self.waited_s = 0.0
        began = time.perf_counter()
        self.ways[way]()
        stalled = time.perf_counter() - began
        self.train(self.steps)
        stalled += self.waited_s
        trained = time.perf_counter() - began
        self.checkpointer.wait()
        whole = time.perf_counter() - began
        figures = {"stalled_s": stalled, "cycle_s": whole, "late_s": whole - trained}
        figures = {key: max(row[0] for row in self.world.gather([value])) for key, value in figures.items()}
        for saved in (event for event in self.checkpointer.events() if isinstance(event, Saved)):
            figures |= {"saved_stalled_s": saved.stalled_s, "published_s": saved.seconds}
        return figures

    def state_bytes(self) -> int:
        """Size of what each way writes."""
        return sum(part.data.nbytes for part in self.strategy.state().values())

    def sha256_s(self) -> float:
        """Seconds in which one worker hashes a whole checkpoint, in a quiet process: what raystack writes
        beyond the others.
        """
        with self.store.fetch(self.store.steps()[-1]) as checkpoint:
            began = time.perf_counter()
            describe_files(checkpoint)
            return time.perf_counter() - began

    def _ours(self) -> None:
        manifest = Manifest("bench", self.done, self.done, None, 0, WORKERS, WORKERS, "ddp", attempt="1")
        self.checkpointer.save(manifest, self.strategy.state())

    def _torch(self) -> None:
        """Rank 0 alone, and to the disk, as the others are."""
        if self.world.rank == 0:
            (self.folder / "theirs").mkdir()
            with (self.folder / "theirs" / "state.pt").open("wb") as file:
                torch.save(
                    {"model": self.strategy.bare.state_dict(), "optimizer": self.optimizer.state_dict()}, file
                )
                file.flush()
                os.fsync(file.fileno())
        dist.barrier()

    def _blocking(self) -> None:
        """As torch's tutorial has it, with what FileSystemWriter does by itself."""
        from torch.distributed.checkpoint.state_dict import get_state_dict
        from torch.distributed.checkpoint.state_dict_saver import save

        model, optimizer = get_state_dict(self.strategy.module, self.optimizer)
        save({"model": model, "optimizer": optimizer}, checkpoint_id=self.folder / "theirs")


def _results(measured: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    first, *later = [{way: _beside(figures, way) for way in figures} for figures in measured["rounds"]]
    rows = {
        way: {
            **{key: spread([figures[way][key] for figures in later]) for key in figures_of},
            "first": figures_of,
        }
        for way, figures_of in first.items()
        if way != NOTHING
    }
    return {
        "benchmark": "checkpoint",
        "machine": machine("torch"),
        "settings": {
            "rounds": arguments.rounds,
            "steps": arguments.steps,
            "width": arguments.width,
            "workers": WORKERS,
            "threads": 1,
        },
        "state_bytes": measured["state_bytes"],
        "sha256_s": measured["sha256_s"],
        "step_s": spread(
            [figures[NOTHING]["cycle_s"] / arguments.steps for figures in measured["rounds"][1:]]
        ),
        "budget": BUDGET,
        "rows": rows,
    }


def _beside(round_of: dict[str, dict[str, float]], way: str) -> dict[str, float]:
    """The figures of a way, and what it is beside nothing and beside the blocking save of the same round."""
    mine = round_of[way]
    extra = mine["cycle_s"] - round_of[NOTHING]["cycle_s"]
    return {
        **{key: value for key, value in mine.items() if key != "cycle_s"},
        "extra_s": extra,
        "stalled_ratio": mine["stalled_s"] / round_of[BLOCKING]["stalled_s"],
        "extra_ratio": extra / round_of[BLOCKING]["stalled_s"],
    }


def _show(results: dict[str, Any]) -> None:
    settings, rows = results["settings"], results["rows"]
    size, step = results["state_bytes"] / 1e6, results["step_s"]["median"] * 1e3
    title = (
        f"{size:.0f} MB, {settings['workers']} workers, steps of {step:.0f} ms, medians of"
        f" {settings['rounds'] - 1} rounds after the first"
    )
    beside = f"/ {BLOCKING}"
    columns = (
        "seconds",
        "stalled",
        "least",
        "most",
        beside,
        "in all",
        "least",
        "most",
        beside,
        "first: stalled",
        "in all",
    )
    show(title, columns, [_row(way, row) for way, row in rows.items()])
    ours = rows[OURS]
    readable, late, ratio = (ours[key]["median"] for key in ("published_s", "late_s", "stalled_ratio"))
    print(
        f"\n{OURS}: can be read after {readable:.2f} s, of which the end of the cycle waits for {late:.2f} s"
    )
    print(f"hashing a checkpoint takes one core {results['sha256_s']:.2f} s")
    print(
        f"budget: stalled at most {BUDGET:.0%} of {BLOCKING}: {'kept' if ratio <= BUDGET else 'missed'}"
        f" ({ratio:.1%})"
    )


def _row(way: str, row: dict[str, Any]) -> list[str]:
    cells = [way]
    for key in ("stalled", "extra"):
        cells += [f"{row[f'{key}_s'][which]:.3f}" for which in ("median", "min", "max")]
        cells.append(f"{row[f'{key}_ratio']['median']:.3f}")
    return [*cells, *(f"{row['first'][key]:.3f}" for key in ("stalled_s", "extra_s"))]


if __name__ == "__main__":
    sys.exit(main())
