"""What is certain to fail is said before Ray, a worker or a model is there."""

from pathlib import Path

import pytest

from raystack.config import load
from raystack.errors import ConfigError, PlanError
from raystack.plan import TrainPlan, plan_training
from raystack.plan.describe import rows
from raystack.training.precheck import check
from raystack.training.strategy import zero

DIGITS = Path(__file__).parents[3] / "examples" / "01_digits" / "config.yaml"
TINY = Path(__file__).parents[2] / "tiny" / "config.yaml"


def planned(config: Path, *overrides: str) -> TrainPlan:
    return plan_training(load(config, list(overrides)), "a-run")


def test_blocks_that_a_task_cannot_have_are_refused_and_none_are_asked_for_by_default() -> None:
    with pytest.raises(
        ConfigError, match=r"training\.strategy\.wrap: the task has to say which blocks .* or drop the key"
    ):
        check(planned(DIGITS, "strategy=fsdp", "training.strategy.wrap=blocks"))
    with pytest.raises(ConfigError, match=r"training\.gradient_checkpointing: .* give it a method blocks"):
        check(planned(DIGITS, "training.gradient_checkpointing=true"))
    check(planned(DIGITS, "strategy=fsdp"))
    check(
        planned(
            TINY, "strategy=fsdp", "training.strategy.wrap=blocks", "training.gradient_checkpointing=true"
        )
    )


def test_blocks_that_a_task_may_get_when_it_is_built_are_left_to_the_workers(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text("""
from dataclasses import dataclass
from typing import Callable

class Bare:
    def __init__(self): self.other = 1

class Built(Bare):
    def __init__(self): self.blocks = list

@dataclass
class Field:
    blocks: Callable

class Delegates(Bare):
    def __getattr__(self, name): return list
""")
    config = tmp_path / "config.yaml"
    config.write_text(TINY.read_text().replace("task:Tiny", "task:Bare"))
    with pytest.raises(ConfigError, match="give it a method blocks"):
        check(planned(config, "training.gradient_checkpointing=true"))
    for name in ("Built", "Field", "Delegates"):
        check(planned(config, "training.gradient_checkpointing=true", f"task.entry=task:{name}"))


@pytest.mark.parametrize(
    ("wrap", "gathered"),
    [
        ("auto", "the task's blocks, or without them modules of 64 MiB or more"),
        ("blocks", "the task's blocks"),
        ("size", "modules of 64 MiB or more"),
        ("whole", "the whole model"),
    ],
)
def test_the_plan_says_what_fsdp_gathers(wrap: str, gathered: str) -> None:
    plan = planned(DIGITS, "strategy=fsdp", f"training.strategy.wrap={wrap}")
    assert dict(rows(plan))["strategy"] == f"fsdp (gathers {gathered}), fp32"


def test_a_precision_is_refused_for_this_machines_workers_and_left_to_those_of_a_cluster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("DS_ACCELERATOR", "LOCAL_RANK"):
        monkeypatch.setenv(name, "cpu" if name == "DS_ACCELERATOR" else "0")
    monkeypatch.setattr(zero._import("cpu").accelerator.get_accelerator(), "is_fp16_supported", lambda: False)
    fp16 = ("strategy=zero1", "training.precision=fp16")
    for here in ("resources=inline", "resources=cpu2"):
        with pytest.raises(PlanError, match=r"training\.precision: .* \(got fp16\)"):
            check(planned(DIGITS, here, *fp16))
    check(planned(DIGITS, "target.address=auto", *fp16))
