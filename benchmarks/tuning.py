"""Studies beside bare Ray Tune: `python benchmarks/tuning.py [--trials 100] [--rounds 1] [--digits]`.

Each trial burns one second of CPU, and two run at a time. raystack's trials go through its plan, its loop and
its record; Ray Tune's are a function, as it comes and with `reuse_actors`. Each way runs in a process of its
own with a Ray of two CPUs, alternated.

With `--pruning`: example 06 with ASHA and 28 trials, beside 20 random points to their end, for three seeds.
With `--digits`: 20 real trainings of the digits, beside a script for Ray Tune as people write it.
"""

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

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
    began = time.perf_counter()
    from raystack import Experiment
    from raystack.events import Event, StudyStarted, TrialEnded

    times: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, (StudyStarted, TrialEnded)):
            times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        Experiment(BURN / "config.yaml", f"tuning.trials={trials}", f"experiment.storage={folder}").tune(
            listen
        )
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
    began = time.perf_counter()
    from raystack import Experiment
    from raystack.events import Event, StudyStarted, TrialEnded

    times: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, (StudyStarted, TrialEnded)):
            times.append(time.perf_counter())

    space = "{training.optimizer.lr: {loguniform: [1.0e-4, 0.1]}, task.args.width: {choice: [8, 16, 32]}}"
    with tempfile.TemporaryDirectory() as folder:
        config = json.loads(
            json.dumps(
                {
                    "defaults": [
                        {"resources": "inline"},
                        {"strategy": "ddp"},
                        {"tracking": "off"},
                        {"tuning": "random"},
                    ],
                    "experiment": {"name": "digits", "seed": 7, "storage": folder},
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
            )
        )
        Experiment(config, f"tuning.space={space}").tune(listen)
    return {
        "up_s": times[0] - began,
        "trials_s": times[-1] - times[0],
        "total_s": time.perf_counter() - began,
    }


def pruning() -> None:
    """Print the best value and the training steps of ASHA and of random search."""
    from raystack import Experiment

    print(f"{'seed':>4} {'':8} {'trials':>6} {'best':>7} {'steps':>6}")
    with tempfile.TemporaryDirectory() as folder:
        for seed in (7, 8, 9):
            for name, options in (("asha", ("tuning.trials=28",)), ("random", ("tuning=random",))):
                study = Experiment(
                    ROOT / "examples" / "06_tuning" / "config.yaml",
                    *options,
                    "tracking=off",
                    "~registry",
                    f"experiment.storage={folder}",
                    f"experiment.seed={seed}",
                    f"tuning.name={name}-{seed}",
                ).tune(lambda event: None)
                assert study.best is not None
                steps = sum(trial.steps for trial in study.records)
                best = study.value_of(study.best)
                print(f"{seed:>4} {name:8} {len(study.records):>6} {best:>7.4f} {steps:>6}", flush=True)


WAYS: dict[str, Callable[[int], dict[str, float]]] = {
    "raystack": ours,
    "Ray Tune, reuse_actors": lambda trials: bare(trials, reuse=True),
    "Ray Tune": lambda trials: bare(trials, reuse=False),
    "raystack, digits": digits,
    "a script for Ray Tune, digits": hand_written,
}


def measured(way: str, trials: int) -> dict[str, float]:
    """Run a way in a process of its own."""
    words = [sys.executable, __file__, "--way", way, "--trials", str(trials)]
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--digits", action="store_true")
    parser.add_argument("--only", action="append", help="one of the ways; may be given again")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--pruning", action="store_true")
    options = parser.parse_args()
    if options.pruning:
        pruning()
        return
    if options.way:
        print(json.dumps(WAYS[options.way](options.trials)))
        return
    chosen = options.only or [way for way in WAYS if ("digits" in way) == options.digits]
    found: dict[str, list[dict[str, float]]] = {way: [] for way in chosen}
    for _ in range(options.rounds):
        for way in chosen:
            found[way].append(measured(way, options.trials))
            print(f"{way}: {found[way][-1]}", file=sys.stderr, flush=True)
    ideal = options.trials / 2
    print(f"{options.trials} trials, two at a time" + ("" if options.digits else f"; ideal {ideal:.0f} s"))
    print(
        f"{'':32} {'until trials':>13} {'trials':>8} {'total':>8}"
        + ("" if options.digits else f" {'trials/ideal':>13}")
    )
    for way in chosen:
        up, trials, total = (
            statistics.median(each[name] for each in found[way]) for name in ("up_s", "trials_s", "total_s")
        )
        ratio = "" if options.digits else f" {trials / ideal:>13.2f}"
        print(f"{way:32} {up:>11.1f} s {trials:>6.1f} s {total:>6.1f} s{ratio}")


if __name__ == "__main__":
    main()
