"""What a plan for Kubernetes promises of a study: pods for its trials at once, within the target's limits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raystack.config import load
from raystack.errors import PlanError
from raystack.plan import KubePlan, plan_kuberay

START = "demo-20261123-094500-3f9a"
GOOD = """\
experiment: {name: demo, storage: "s3://bucket/demo"}
task: {entry: "task:Demo"}
training: {steps: 10, batch: {global: 48}}
resources: {workers: 2, cpus_per_worker: 2}
tracking: {uri: "http://mlflow.ml.svc:5000"}
target: {kind: kuberay, image: "registry.example.com/raystack:1"}
tuning:
  name: widths
  metric: eval/accuracy
  trials: 20
  parallel: 4
  space: {training.optimizer.lr: {loguniform: [1.0e-4, 0.1]}}
"""

Planned = Callable[..., KubePlan]


@pytest.fixture
def planned(tmp_path: Path) -> Planned:
    """A plan of GOOD with overrides."""
    (tmp_path / "config.yaml").write_text(GOOD)

    def planned(*overrides: str, run: str | None = START, form: Any = "tune") -> KubePlan:
        return plan_kuberay(load(tmp_path / "config.yaml", overrides), run, form)

    return planned


def bounds(plan: KubePlan) -> tuple[bool | None, int, int, int | None]:
    group = plan.group
    return plan.target.autoscaling.enabled, group.least, group.most, group.replicas


def test_a_study_is_a_ray_job_whose_driver_tunes(planned: Planned) -> None:
    plan = planned()
    assert (plan.kind, plan.name, plan.run_id) == ("RayJob", START, START)
    assert plan.entrypoint == ("python", "-m", "raystack.tune", "/etc/raystack/config.yaml")
    kept = planned(run=None)
    assert (kept.name, kept.run_id) == ("widths-tune", None), "applied again it replaces itself"


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        ((), (True, 2, 8, None)),
        (("tuning.parallel=1",), (False, 2, 2, 2)),
        (("tuning.parallel=null",), (False, 2, 2, 2)),
        (("target.autoscaling.max_workers=7",), (True, 2, 7, None)),
        (("target.autoscaling.max_workers=6",), (True, 2, 6, None)),
        (("target.autoscaling.enabled=false",), (False, 2, 8, 8)),
        (("tuning.trials=3",), (True, 2, 6, None)),
        (("resources.workers=1",), (True, 1, 4, None)),
        (("resources.workers=inline",), (True, 1, 4, None)),
        (("resources.workers=[1,2]",), (True, 2, 8, None)),
        (("resources.placement=STRICT_PACK",), (True, 1, 4, None)),
        # A queue has rules of its own for jobs that grow.
        (("queue=volcano",), (False, 2, 8, 8)),
        (("queue=volcano", "target.autoscaling.enabled=true"), (True, 2, 8, None)),
    ],
    ids=str,
)
def test_pods_are_those_of_one_trial_at_least_and_of_all_at_once_at_most(
    planned: Planned, overrides: tuple[str, ...], wanted: tuple[bool, int, int, int | None]
) -> None:
    assert bounds(planned(*overrides)) == wanted


def test_a_training_without_a_study_scales_only_where_it_is_told_to(planned: Planned) -> None:
    assert bounds(planned(form="job")) == (False, 2, 2, 2)


@pytest.mark.parametrize(
    ("space", "cpus", "least"),
    [
        ("resources.cpus_per_worker: {choice: [1, 6, 3]}", "6", 2),
        ("resources.cpus_per_worker: {randint: [1, 5]}", "4", 2),
        ("resources.workers: {choice: [1, 3]}", "2", 3),
        ("resources: {group: [cpu1, cpu2]}", "2", 2),
    ],
)
def test_a_pod_holds_the_largest_trial_of_the_space(
    planned: Planned, space: str, cpus: str, least: int
) -> None:
    plan = planned(f"tuning.space={{{space}}}")
    assert (plan.group.pod.cpus, plan.group.least, plan.group.most) == (cpus, least, 4 * least)


def test_one_pod_for_a_whole_trial_holds_all_of_its_workers(planned: Planned) -> None:
    assert planned("resources.placement=STRICT_PACK").group.pod.cpus == "4"


@pytest.mark.parametrize(
    ("overrides", "where"),
    [
        (("target.autoscaling.max_workers=1",), "target.autoscaling.max_workers"),
        (("tuning.parallel=1", "target.autoscaling.enabled=true"), "target.autoscaling.enabled"),
        (("target.worker.cpus=1",), "target.worker.cpus"),
        (("tuning=tpe", "tuning.search.storage=sqlite:////tmp/optuna.db"), "tuning.search.storage"),
        (("tuning=tpe", "tuning.search.storage=mysql://localhost/optuna"), "tuning.search.storage"),
        (("experiment.storage=/data",), "experiment.storage"),
        (("target.submission.mode=InteractiveMode", "target.submission.retries=1"), "target.submission."),
    ],
    ids=str,
)
def test_what_could_not_work_is_refused(planned: Planned, overrides: tuple[str, ...], where: str) -> None:
    with pytest.raises(PlanError) as caught:
        planned(*overrides)
    (problem,) = caught.value.problems
    assert problem.where.startswith(where)


def test_a_database_that_pods_reach_is_fine(planned: Planned) -> None:
    mounted = "target.storage.volumes=[{kind: pvc, name: runs, mount: /data}]"
    planned("tuning=tpe", "tuning.search.storage=postgresql://db.ml.svc/optuna")
    planned("tuning=tpe", "tuning.search.storage=sqlite:////data/optuna.db", mounted)
