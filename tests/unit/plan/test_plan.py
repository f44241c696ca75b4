"""What a plan promises: decided once, printable, the same for the same config, and refused with a remedy."""

import json
import pickle
import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from raystack.config import load
from raystack.errors import PlanError
from raystack.plan import ServePlan, TrainPlan, plan_serving, plan_training
from raystack.plan.accelerators import peak_flops
from raystack.plan.describe import as_json, rows
from raystack.plan.naming import run_id, step_name

GOOD = """\
experiment: {name: demo, storage: /data}
task: {entry: "task:Demo"}
training:
  steps: 123
  batch: {global: 48, micro: 3}
  optimizer: {kind: sgd, lr: 0.25, momentum: 0.875}
  clip_norm: 1.5
resources: {workers: 4, cpus_per_worker: 2, custom: {rack_a: 0.5}}
registry: {model: demo, alias: champion}
serving: {port: 8123, replicas: 5, batching: {max_size: 17, wait_ms: 2.5}}
"""

Plan = Callable[..., TrainPlan]


@pytest.fixture
def train(tmp_path: Path) -> Plan:
    """A training plan of GOOD with overrides."""
    (tmp_path / "config.yaml").write_text(GOOD)
    return lambda *overrides: plan_training(load(tmp_path / "config.yaml", overrides), "demo-1")


@pytest.fixture
def serve(tmp_path: Path) -> Callable[..., ServePlan]:
    """A serving plan of GOOD with overrides."""
    (tmp_path / "config.yaml").write_text(GOOD)
    return lambda *overrides: plan_serving(load(tmp_path / "config.yaml", overrides))


def test_runs_of_one_worker_share_a_gpu(train: Plan) -> None:
    plan = train("resources.workers=1", "resources.gpus_per_worker=0.25", "resources.device_memory_gib=10")
    assert (plan.workers.device, plan.workers.resources["GPU"]) == ("cuda", 0.25)
    with pytest.raises(PlanError, match=r"resources\.gpus_per_worker: .*cannot share a GPU.*\(got 0\.25\)"):
        train("resources.workers=4", "resources.gpus_per_worker=0.25")


def test_a_training_plan(train: Plan) -> None:
    plan = train()
    assert dict(rows(plan)) == {
        "run": "demo-1",
        "task": "task:Demo in an installed package",
        "length": "123 steps, seed 0",
        "workers": "4 on Ray, 2 CPU, 0.5 rack_a each, PACK, cpu over gloo, 2 thread(s)",
        "batch": "48 = 3 micro x 4 accumulation x 4 worker(s)",
        "strategy": "ddp, fp32",
        "optimizer": "sgd, lr 0.25, momentum 0.875, clipped at 1.5",
        "schedule": "constant, 0 warm-up steps",
        "evaluate": "at the end, batch 3",
        "checkpoint": "at the end, keep last 2",
        "folder": "/data/runs/demo-1",
        "tracking": "sqlite:////data/mlflow.db",
        "register": "models:/demo@champion",
        "ray": "started for this, without its dashboard (target.dashboard)",
    }
    assert plan.workers.needed == {"CPU": 8.0, "rack_a": 2.0}


def test_a_serving_plan(serve: Callable[..., ServePlan]) -> None:
    plan = serve()
    assert dict(rows(plan)) == {
        "model": "models:/demo@champion",
        "name": "demo",
        "url": "http://127.0.0.1:8123/v2/models/demo",
        "replicas": "5, 1 CPU and 0 GPU each, 1 thread(s)",
        "batching": "up to 17 samples, 2.5 ms",
        "requests": "100 at a time per replica, 1000 may wait",
        "tracking": "sqlite:////data/mlflow.db",
        "ray": "started for this, without its dashboard (target.dashboard)",
    }


def test_a_serving_plan_with_grpc(serve: Callable[..., ServePlan]) -> None:
    plan = serve("serving.grpc_port=8001", "serving.host=0.0.0.0")
    assert dict(rows(plan))["grpc"] == "127.0.0.1:8001"
    assert plan.grpc is not None
    assert plan.grpc["port"] == 8001


def test_a_plan_is_a_value(train: Plan, serve: Callable[..., ServePlan]) -> None:
    for plan in (train(), serve()):
        assert pickle.loads(pickle.dumps(plan)) == plan
        with pytest.raises(FrozenInstanceError):
            plan.config = None  # type: ignore[misc, assignment]
    assert train() == train()


def numbers(node: Any) -> list[float]:
    match node:
        case bool():
            return []
        case int() | float():
            return [float(node)]
        case dict():
            return [number for value in node.values() for number in numbers(value)]
        case list():
            return [number for value in node for number in numbers(value)]
    return []


def test_json_holds_every_number(train: Plan, serve: Callable[..., ServePlan]) -> None:
    found = numbers(json.loads(as_json(train())))
    assert {48, 3, 4, 123, 0.25, 0.875, 1.5, 2, 0.5} <= set(found)
    assert {8123, 5, 17, 2.5, 100, 1000} <= set(numbers(json.loads(as_json(serve()))))


@pytest.mark.parametrize(
    ("checkpoint", "evaluate", "best", "decided"),
    [
        (100, None, False, (None, 100)),
        (100, None, True, (100, 100)),
        (100, 50, True, (50, 100)),
        (100, 30, False, (30, 100)),
        (None, 30, True, (30, None)),
        (None, None, True, (None, None)),
        (100, 30, True, 90),
        (10, 30, True, 30),
        (50, 30, True, 60),
    ],
)
def test_the_best_checkpoint_needs_an_evaluation_before_it(
    checkpoint: int | None,
    evaluate: int | None,
    best: bool,
    decided: tuple[int | None, int | None] | int,
    train: Plan,
) -> None:
    given = {"training.checkpoint.every_steps": checkpoint, "training.evaluate.every_steps": evaluate}
    overrides = [f"{key}={value}" for key, value in given.items() if value is not None]
    if best:
        overrides.append("training.checkpoint.keep_best={metric: eval/loss, mode: min}")
    if isinstance(decided, tuple):
        cadence = train(*overrides).cadence
        assert (cadence.evaluate.steps, cadence.checkpoint.steps) == decided
        return
    with pytest.raises(PlanError, match=rf"nearest: training\.checkpoint\.every_steps={decided}$"):
        train(*overrides)
    train(*overrides, f"training.checkpoint.every_steps={decided}")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("training.evaluate.every_epochs=0.2", "training.checkpoint.every_epochs=0.5"),
            r"a multiple of evaluate\.every_epochs=0\.2 \(got 0\.5\); nearest: .*every_epochs=0\.4$",
        ),
        (
            ("training.evaluate.every_steps=2", "training.checkpoint.every_epochs=0.5"),
            r"both in steps, or both in epochs \(got every 0\.5 epochs and at the end\)$",
        ),
    ],
)
def test_intervals_in_epochs_meet_as_those_in_steps_do(
    overrides: tuple[str, ...], message: str, train: Plan
) -> None:
    best = "training.checkpoint.keep_best={metric: eval/loss, mode: min}"
    with pytest.raises(PlanError, match=message):
        train(*overrides, best)
    train(best, "training.evaluate.every_epochs=0.1", "training.checkpoint.every_epochs=0.3")


def test_early_stopping_needs_evaluations_during_the_training(train: Plan) -> None:
    early = "training.early_stopping={metric: eval/loss, mode: min, patience: 3}"
    with pytest.raises(PlanError, match=r"early_stopping: it compares .*evaluate\.every_steps or e"):
        train(early)
    for interval in ("every_steps=10", "every_epochs=0.5"):
        train(early, f"training.evaluate.{interval}")


@pytest.mark.parametrize(
    ("overrides", "uri", "artifacts"),
    [
        ((), "sqlite:////data/mlflow.db", "/data/mlflow"),
        (("tracking.uri=http://mlflow:5000",), "http://mlflow:5000", None),
        (("tracking.uri=http://mlflow:5000", "experiment.storage=s3://bucket/x"), "http://mlflow:5000", None),
        (("tracking=off", "~registry"), None, None),
        (("tracking=off", "~registry", "experiment.storage=s3://bucket/x"), None, None),
    ],
)
def test_where_a_run_is_tracked(
    overrides: tuple[str, ...], uri: str | None, artifacts: str | None, train: Plan
) -> None:
    plan = train(*overrides)
    assert (plan.tracking_uri, plan.artifacts) == (uri, artifacts)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("tracking=off",), "registry.model: registering needs MLflow, and tracking is off"),
        (
            ("experiment.storage=s3://bucket/x",),
            "tracking.uri: the embedded MLflow store needs experiment.storage to be a local folder",
        ),
        (("resources.workers=inline",), "resources.workers: inline trains in the process that was started"),
        (
            ("training.batch.global=50",),
            "training.batch: global has to be a multiple of micro 3 x 4 workers (got global 50)",
        ),
    ],
)
def test_what_cannot_be_is_refused(overrides: tuple[str, ...], says: str, train: Plan) -> None:
    with pytest.raises(PlanError) as refused:
        train(*overrides)
    assert str(refused.value).startswith(says)
    assert refused.value.problems[0].remedy


def test_an_elastic_run_shows_the_json_of_deepspeed_for_every_number_of_workers(train: Plan) -> None:
    plan = train(
        "resources.workers=[2,4]", "training.strategy={kind: zero, stage: 1}", "training.batch.micro=6"
    )
    shown = {name: json.loads(text) for name, text in rows(plan) if name.startswith("deepspeed")}
    assert shown == {
        "deepspeed": plan.deepspeed_on(4),
        "deepspeed on 3 workers": plan.deepspeed_on(3),
        "deepspeed on 2 workers": plan.deepspeed_on(2),
    }
    sizes = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "train_batch_size")
    assert [[each[size] for size in sizes] for each in shown.values()] == [[6, 2, 48], [4, 4, 48], [6, 4, 48]]


def test_inline_is_one_worker_without_ray(train: Plan) -> None:
    workers = train("resources={workers: inline, custom: {}}", "~resources.custom").workers
    assert (workers.inline, workers.count) == (True, 1)


@pytest.mark.parametrize(
    ("overrides", "model", "name", "uri"),
    [
        (("serving.model=/ckpt",), "/ckpt", "demo", None),
        (("serving.model=/ckpt", "experiment.storage=s3://bucket/x", "tracking=off"), "/ckpt", "demo", None),
        (
            ("serving.model=models:/other/3", "serving.name=short"),
            "models:/other/3",
            "short",
            "sqlite:////data/mlflow.db",
        ),
        (("serving.model=/ckpt", "~registry"), "/ckpt", "demo", None),
    ],
)
def test_what_is_served(
    overrides: tuple[str, ...], model: str, name: str, uri: str | None, serve: Callable[..., ServePlan]
) -> None:
    plan = serve(*overrides)
    assert (plan.model, plan.name, plan.tracking.uri) == (model, name, uri)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (
            ("~registry",),
            (
                "serving.model: there is no model to serve; set serving.model=models:/name@alias, or to a"
                " checkpoint's folder"
            ),
        ),
        (
            ("tracking=off",),
            (
                "serving.model: a model from the registry needs MLflow, and tracking is off (got"
                " models:/demo@champion)"
            ),
        ),
        (
            ("registry.model='two words'",),
            "serving.name: is left out, and the registered name cannot stand in a URL (got two words)",
        ),
        (
            ("serving.grpc_port=8123",),
            "serving.grpc_port: has to be another port than serving.port (got 8123)",
        ),
    ],
)
def test_what_cannot_be_served_is_refused(
    overrides: tuple[str, ...], says: str, serve: Callable[..., ServePlan]
) -> None:
    with pytest.raises(PlanError) as refused:
        serve(*overrides)
    assert str(refused.value).startswith(says)


def test_run_ids_sort_by_time_and_are_valid_names() -> None:
    start = datetime(2026, 12, 31, 23, 59, 58, tzinfo=UTC)
    names = [run_id("a" * 40, start + timedelta(seconds=number), "ffff") for number in range(5)]
    assert names == sorted(names)
    for name in names:
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name), (
            "a Kubernetes label has at most 63 characters"
        )
    assert sorted([step_name(step) for step in (100, 20, 3)]) == [step_name(3), step_name(20), step_name(100)]


@pytest.mark.parametrize(
    ("device", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L40", None),
        ("Tesla V100-SXM2-16GB", None),
        ("AMD EPYC", None),
    ],
)
def test_a_peak_is_known_or_not_given(device: str, peak: float | None) -> None:
    assert peak_flops(device, "bf16") == peak
