"""Studies beside bare Ray Tune.

Each trial burns one second of CPU, and two run at a time. raystack's trials go through its plan, its loop and
its record; Ray Tune's are a function, as it comes and with `reuse_actors`. Each way runs in a process of its
own with a Ray of two CPUs, alternated.

`digits`: 20 real trainings of example 01's network, beside a script for Ray Tune as people write it.
`pruning`: example 06 with ASHA and 28 trials, beside 20 random points to their end.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from figures import machine, parse, parser, show, spread, write
from running import turn

HERE = Path(__file__).parent
ROOT = HERE.parent
BURN = HERE / "burn"
LONGEST_S = 1200.0


def burn(seconds: float) -> None:
    """Use a second of CPU time, which another process on the same core does not shorten."""
    began = time.process_time()
    while time.process_time() - began < seconds:
        pass


def bare(trials: int, *, reuse: bool) -> dict[str, float]:
    """Run the trials on bare Ray Tune."""
    began = time.perf_counter()
    import ray
    from ray import tune

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)

    def trial(config: dict[str, float]) -> None:
        burn(1.0)
        tune.report({"loss": config["lr"]})

    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            trial,
            param_space={"lr": tune.uniform(0.0, 1.0)},
            tune_config=tune.TuneConfig(num_samples=trials, metric="loss", mode="min", reuse_actors=reuse),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        up = time.perf_counter()
        tuner.fit()
        done = time.perf_counter()
    ray.shutdown()
    return {"up_s": up - began, "trials_s": done - up, "total_s": time.perf_counter() - began}


def ours(trials: int) -> dict[str, float]:
    """Run the trials as a study, from Python."""
    return _study(BURN / "config.yaml", f"tuning.trials={trials}")


def _study(config: Path | dict[str, Any], *overrides: str) -> dict[str, float]:
    began = time.perf_counter()
    from raystack import Experiment
    from raystack.events import Event, StudyStarted, TrialEnded

    times: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, (StudyStarted, TrialEnded)):
            times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        Experiment(config, *overrides, f"experiment.storage={folder}").tune(listen)
    return {
        "up_s": times[0] - began,
        "trials_s": times[-1] - times[0],
        "total_s": time.perf_counter() - began,
    }


def hand_written(trials: int) -> dict[str, float]:
    """Run real trainings of the digits as a script for Ray Tune does."""
    began = time.perf_counter()
    import ray
    import torch
    from ray import tune

    sys.path.insert(0, str(ROOT / "examples" / "01_digits"))
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    folder_of_task = str(ROOT / "examples" / "01_digits")

    def train(config: dict[str, float]) -> None:
        sys.path.insert(0, folder_of_task)
        Digits = import_module("task").Digits  # noqa: N806

        torch.set_num_threads(1)
        torch.manual_seed(7)
        task = Digits(width=int(config["width"]))
        model, data, test = task.model(), task.train_data(), task.eval_data()
        optimizer = torch.optim.AdamW(model.parameters(), lr=config["lr"])
        loader = torch.utils.data.DataLoader(data, batch_size=64, shuffle=True)
        for _ in range(6):
            model.train()
            for batch in loader:
                optimizer.zero_grad()
                task.loss(model, batch).backward()
                optimizer.step()
            model.eval()
            total, right = 0, 0.0
            with torch.inference_mode():
                for batch in torch.utils.data.DataLoader(test, batch_size=64):
                    values = task.metrics(model, batch)["accuracy"]
                    right, total = right + float(values.sum()), total + len(values)
            with tempfile.TemporaryDirectory() as here:
                torch.save(
                    {"model": model.state_dict(), "optimizer": optimizer.state_dict()}, f"{here}/state.pt"
                )
                tune.report({"accuracy": right / total}, checkpoint=tune.Checkpoint.from_directory(here))

    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            train,
            param_space={"lr": tune.loguniform(1e-4, 1e-1), "width": tune.choice([8, 16, 32])},
            tune_config=tune.TuneConfig(num_samples=trials, metric="accuracy", mode="max", reuse_actors=True),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        up = time.perf_counter()
        tuner.fit()
        done = time.perf_counter()
    ray.shutdown()
    return {"up_s": up - began, "trials_s": done - up, "total_s": time.perf_counter() - began}


def digits(trials: int) -> dict[str, float]:
    """Run real trainings of the digits as a study."""
    space = "{training.optimizer.lr: {loguniform: [1.0e-4, 0.1]}, task.args.width: {choice: [8, 16, 32]}}"
    config = {
        "defaults": [{"resources": "inline"}, {"strategy": "ddp"}, {"tracking": "off"}, {"tuning": "random"}],
        "experiment": {"name": "digits", "seed": 7},
        "task": {
            "entry": "task:Digits",
            "folder": str(ROOT / "examples" / "01_digits"),
            "args": {"width": 32},
        },
        "training": {
            "epochs": 6,
            "batch": {"global": 64},
            "optimizer": {"kind": "adamw", "lr": 1e-3},
            "evaluate": {"every_steps": 23},
            "checkpoint": {"every_steps": 23},
        },
        "tuning": {"metric": "eval/accuracy", "mode": "max", "trials": trials},
    }
    return _study(config, f"tuning.space={space}")


def pruned(name: str, seed: int) -> dict[str, float]:
    """Run example 06 with ASHA, or with random points; return its best value and training steps."""
    from raystack import Experiment

    options = {"asha": "tuning.trials=28", "random": "tuning=random"}[name]
    with tempfile.TemporaryDirectory() as folder:
        study = Experiment(
            ROOT / "examples" / "06_tuning" / "config.yaml",
            options,
            "tracking=off",
            "~registry",
            f"experiment.storage={folder}",
            f"experiment.seed={seed}",
        ).tune(lambda event: None)
        best = study.best
        assert best is not None
        value = study.value_of(best)
        assert value is not None
        steps = sum(trial.steps for trial in study.records)
        return {"trials": len(study.records), "best": value, "steps": steps}


WAYS: dict[str, dict[str, Callable[[int], dict[str, float]]]] = {
    "burn": {
        "raystack": ours,
        "Ray Tune, reuse_actors": lambda trials: bare(trials, reuse=True),
        "Ray Tune": lambda trials: bare(trials, reuse=False),
    },
    "digits": {"raystack": digits, "a script for Ray Tune": hand_written},
    "pruning": {"asha": lambda seed: pruned("asha", seed), "random": lambda seed: pruned("random", seed)},
}
DIGITS = 20
"""Trials of `digits`."""
SEEDS = (7, 8, 9)
"""Of `pruning`."""


def measured(part: str, way: str, argument: int) -> dict[str, float]:
    """Run a way in a process of its own."""
    words = [sys.executable, __file__, "--way", part, way, str(argument)]
    environment = {**os.environ, "RAY_AIR_NEW_OUTPUT": "0", "TUNE_WARN_THRESHOLD_S": "100"}
    done = subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=LONGEST_S, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise SystemExit(f"{way} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    found: dict[str, float] = json.loads(lines[-1])
    return found


def main() -> None:
    """Measure, print the tables, write the JSON."""
    if sys.argv[1:2] == ["--way"]:
        part, way, argument = sys.argv[2:]
        print(json.dumps(WAYS[part][way](int(argument))))
        return
    options = parser(__doc__, "tuning", "4 trials, once, without Ray Tune as it comes, `burn` alone")
    options.add_argument("--parts", nargs="+", choices=WAYS, help="burn digits pruning (all)")
    options.add_argument("--trials", type=int, help="trials of `burn` (100)")
    options.add_argument("--rounds", type=int, help="of `burn` and `digits` (1)")
    full = {"parts": list(WAYS), "trials": 100, "rounds": 1}
    arguments = parse(options, "tuning", full, {"parts": ["burn"], "trials": 4, "rounds": 1})
    rows: dict[str, Any] = {}
    for part in arguments.parts:
        rows[part] = _pruning() if part == "pruning" else _timed(part, arguments)
    if arguments.output:
        settings = {key: getattr(arguments, key) for key in ("parts", "trials", "rounds")}
        about = {"benchmark": "tuning", "machine": machine("ray", "torch"), "settings": settings}
        write(arguments.output, {**about, "rows": rows})


def _timed(part: str, arguments: argparse.Namespace) -> dict[str, Any]:
    trials = arguments.trials if part == "burn" else DIGITS
    ways = [way for way in WAYS[part] if not (arguments.quick and way == "Ray Tune")]
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for number in range(arguments.rounds):
        for way in turn(ways, number):
            found[way].append(measured(part, way, trials))
    row = {
        way: {name: spread([each[name] for each in times]) for name in times[0]}
        for way, times in found.items()
    }
    ideal = trials / 2
    lines = [
        [
            way,
            *(f"{times[name]['median']:.1f} s" for name in ("up_s", "trials_s", "total_s")),
            *([f"{times['trials_s']['median'] / ideal:.2f}"] if part == "burn" else []),
        ]
        for way, times in row.items()
    ]
    columns = ["", "until trials", "trials", "total", *(["trials / ideal"] if part == "burn" else [])]
    title = f"{part}: {trials} trials, two at a time" + (f", ideal {ideal:.0f} s" if part == "burn" else "")
    show(title, columns, lines)
    return row


def _pruning() -> dict[str, Any]:
    row = {way: {str(seed): measured("pruning", way, seed) for seed in SEEDS} for way in WAYS["pruning"]}
    lines = [
        [way, str(seed), *(f"{row[way][str(seed)][name]:.4g}" for name in ("trials", "best", "steps"))]
        for seed in SEEDS
        for way in row
    ]
    show("pruning: example 06", ["", "seed", "trials", "best", "steps"], lines)
    return row


if __name__ == "__main__":
    main()
