"""A task's own code between two steps: on every worker, at the same moments, and its errors are its own."""

import json
from pathlib import Path
from typing import Any

import pytest
from measured_workers import Told, trained

pytestmark = pytest.mark.slow
STRATEGIES = ("ddp", "fsdp", "zero1", "zero2", "zero3")
HOOKS = {"step": 2, "evaluate": 2, "checkpoint": 3}
"""With the step after which each raises."""
EVERY = [
    "task.entry=task:Hooked",
    "training.epochs=1",
    "training.log_every_steps=3",
    "training.evaluate.every_steps=2",
    "training.checkpoint.every_steps=3",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hooks")


@pytest.fixture(scope="module")
def told(folder: Path) -> dict[str, Told]:
    cases = {name: [*EVERY, f"strategy={name}"] for name in STRATEGIES}
    cases |= {f"raises {name}": [*EVERY, f"task.args.raises={name}"] for name in HOOKS}
    for case in [*cases, "inline"]:
        (folder / case).mkdir()
    ledgers = {case: [*overrides, f"task.args.ledger={folder / case}"] for case, overrides in cases.items()}
    return trained(folder, [(2, ledgers), (1, {"inline": [*EVERY, f"task.args.ledger={folder / 'inline'}"]})])


def lines(folder: Path, case: str, rank: int) -> list[Any]:
    return [json.loads(line) for line in (folder / case / f"{rank}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("case", [*STRATEGIES, "inline"])
def test_hooks_are_called_on_every_worker_at_the_same_moments(
    told: dict[str, Told], folder: Path, case: str
) -> None:
    assert told[case]["error"] is None
    workers = 1 if case == "inline" else 2
    model = "FSDPModel" if case == "fsdp" else "Model"
    expected: list[Any] = []
    for step in range(1, 5):
        place = [step, 4, step / 4, workers, model]
        expected.append(
            ["step", *place, step != 2]
        )  # whether it is reported: first, in the interval, or saved
        expected += [["checkpoint", *place, f"step-{step:010}"]] if step >= 3 else []
        expected += [["evaluate", *place, max(3 - step, 0)]] if step % 2 == 0 else []
    for rank in range(workers):
        assert lines(folder, case, rank) == expected


@pytest.mark.parametrize("hook", HOOKS)
def test_an_error_in_a_hook_is_the_tasks_own(told: dict[str, Told], hook: str) -> None:
    case, where = told[f"raises {hook}"], f"on_{hook} after step {HOOKS[hook]}, rank 0"
    assert case["error"].startswith(f"{where}: ValueError: no room on the board; see task.py:")
    assert f"in on_{hook}" in case["trace"]
