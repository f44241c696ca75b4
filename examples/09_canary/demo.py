"""Serve the digits, and roll out two other versions while requests come: a bad one, then a good one.

The bad one goes back by itself. Everything is kept in RAYSTACK_STORAGE, or in `.demo` at the root of the
checkout, and `canary.html` there tells it with a picture. Arguments are overrides of config.yaml.
"""

import os
import signal
import sys
import time
from pathlib import Path

from page import Look, Rolled, write
from traffic import load

from raystack import Experiment

HERE = Path(__file__).parent
QUIET_S = 3.0
"""Seconds of requests before, between and after the rollouts."""
LONGEST_S = 180.0
"""Seconds that a rollout may take."""


def main(*overrides: str) -> int:
    os.environ.setdefault("RAYSTACK_STORAGE", str(HERE.parents[1] / ".demo"))
    experiment = Experiment(HERE / "config.yaml", *overrides)
    first = train(experiment, "the digits of example 01")
    bad = train(experiment.override("task.entry=slip:Inverted"), "the same, with its images inverted")
    good = train(experiment.override("task.args.width=48"), "a wider network")
    move = experiment.promote(first.rpartition("/")[2], alias="champion", why="the first version").move
    print(f"{move.model}@{move.alias} is version {move.version}\n", flush=True)

    with experiment.serve() as served, load(served.url) as answers:
        print(f"requests to {served.url}", flush=True)
        rolled = [roll_out(experiment, version) for version in (bad, good)]
        time.sleep(QUIET_S)
    file = Path(experiment.config.experiment.storage, "canary.html")
    file.write_text(write(answers, rolled), encoding="utf-8")

    failed = sum(not answer.version for answer in answers)
    print(f"{len(answers)} requests, {failed} failed")
    for each in rolled:
        print(f"version {each.version}: {each.told(answers)}")
    print(f"{move.model}@{move.alias} is version {experiment.moves[-1].version}\npage {file}")
    return 1 if failed or [each.status for each in rolled] != ["rolled back", "finished"] else 0


def train(experiment: Experiment, what: str) -> str:
    """Return the registered version, `models:/name/number`."""
    outcome = experiment.train(on_event=lambda event: None)
    accuracy = outcome.metrics["eval/accuracy"]
    print(f"{outcome.model_version}: {what}, accuracy {accuracy:.4f} by its own evaluation", flush=True)
    return str(outcome.model_version)


def roll_out(experiment: Experiment, version: str) -> Rolled:
    """Roll a version out, or back, and return how that went."""
    time.sleep(QUIET_S)
    print(f"\nrollout of {version}", flush=True)
    began, told, looks = time.time(), 0, []
    experiment = experiment.override("target.address=auto", f"rollout.model={version}")
    handle = experiment.start_rollout(supersede=True)
    for state in handle.watch(0.25):
        if state.doing == "watch" and not state.over:
            evidence = max((test.e for test in state.tests.values()), default=1.0)
            looks.append(Look(time.time(), state.step, evidence))
        for decision in handle.decisions[told:]:
            told += 1
            print(f"{decision.at - began:6.1f} s  {decision.what:<10} {decision.why}", flush=True)
        if time.time() - began > LONGEST_S:
            raise SystemExit(f"error: {version}: its rollout is not over after {LONGEST_S:g} s")
    return Rolled(version.rpartition("/")[2], state.status, handle.decisions, looks, handle.plan)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray and the server end as on Ctrl-C
    try:
        sys.exit(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
