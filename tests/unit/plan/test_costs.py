"""What a run costs and may cost: prices by machine and region, the estimate, what travels, idle clusters."""

from collections.abc import Callable
from pathlib import Path

import pytest

from raystack.config import load
from raystack.config.price_list import load_prices
from raystack.errors import ConfigError, PlanError
from raystack.plan import TrainPlan, plan_training, plan_tuning
from raystack.plan.costs import CostPlan, Pace, cost_rows, plan_costs
from raystack.plan.decision import sent_config
from raystack.plan.idle import idle

TINY = Path(__file__).parents[2] / "tiny" / "config.yaml"
KUBE = ["target=kuberay", "target.image=registry/raystack:1", "experiment.storage=s3://bucket/raystack"]
H100 = [*KUBE, "prices=eks", "machine=eks-p5", "resources.workers=16"]


def costs(*overrides: str) -> CostPlan:
    return plan_costs(load(TINY, list(overrides)))


def test_a_worker_costs_its_part_of_the_machine_that_it_asks_for() -> None:
    found = costs(*H100)
    assert found.per_hour(16) == pytest.approx(2 * 55.04)
    assert found.source == "p5.48xlarge in us-east-1, on demand, prices of 2026-02-09; head not counted"
    head = costs(*H100, "prices.head=m5.2xlarge")
    assert head.per_hour(16) == pytest.approx(2 * 55.04 + 0.384 * 2 / 8)
    spot = costs(
        "prices=gke", "prices.machine=n2-standard-8", "prices.spot=true", "resources.cpus_per_worker=4"
    )
    assert spot.per_hour(1) == pytest.approx(0.108608 / 2)
    assert costs().per_hour(1) is None


@pytest.mark.parametrize(
    ("overrides", "where"),
    [
        (["prices=eks", "prices.machine=m5.2xlrge"], r"prices.machine: .*did you mean m5.2xlarge\?"),
        ([*H100, "target.spot.enabled=true"], "target.worker.node_selector: has no spot price"),
        (["budget.money=5"], "budget.money: money is counted by the price of a worker"),
        (["budget.gpu_hours=5"], "budget.gpu_hours: it is never reached: workers have no GPU"),
        (["prices=gke", "prices.machine=g2-standard-8", "prices.region=moon"], "for region moon"),
    ],
)
def test_what_has_no_price_is_refused(overrides: list[str], where: str) -> None:
    with pytest.raises(PlanError, match=where):
        costs(*overrides)


def test_the_price_and_the_budget_travel_to_a_driver_that_does_not_know_the_target() -> None:
    plan = plan_training(load(TINY, [*H100, "budget.money=500", "prices.head=m5.2xlarge"]), "tiny-1")
    there = sent_config(plan).model_copy(update={"target": load(TINY).target})
    again = plan_training(there, "tiny-1").costs
    assert again.per_hour(16) == plan.costs.per_hour(16)
    assert again.limits == plan.costs.limits


def test_a_dry_run_says_the_price_of_an_hour_and_of_the_run() -> None:
    found = costs(*H100, "budget.gpu_hours=100")
    rows = dict(cost_rows(found, 16, Pace("tiny-0", 0.5, 7200)))
    assert rows["price"].startswith("110.08 USD per hour, ")
    assert rows["estimate"] == "60 min, 16.00 GPU-hours, 110.08 USD for 7200 steps of 0.5 s, as in tiny-0"
    assert rows["budget"] == "100 GPU-hours; warns at 80%"
    assert cost_rows(costs(), 1) == []


def test_a_study_has_limits_of_its_own() -> None:
    space = "tuning={space: {training.optimizer.lr: {loguniform: [0.001, 0.1]}}, metric: eval/error}"
    config = load(TINY, ["budget.time_s=5", space])
    with pytest.raises(PlanError, match=r"budget.time_s: .*tuning.limits"):
        plan_tuning(config, "tiny-1")


def test_an_idle_cluster_costs_what_its_pods_hold() -> None:
    def pod(machine: str, **limits: str) -> dict[str, object]:
        selector = {"node.kubernetes.io/instance-type": machine}
        spec = {"nodeSelector": selector, "containers": [{"resources": {"limits": limits}}]}
        return {"template": {"spec": spec}}

    workers = {**pod("p5.48xlarge", **{"nvidia.com/gpu": "4"}), "replicas": 3, "minReplicas": 1}
    spec = {"headGroupSpec": pod("m5.2xlarge", cpu="4"), "workerGroupSpecs": [workers]}
    found = idle({"spec": spec}, 7200, load_prices("eks"))
    assert found.gpu_hours == 24
    assert found.money == pytest.approx(2 * (3 * 55.04 / 2 + 0.384 / 2))
    assert found.line == "24.00 GPU-hours, 165.50 USD"
    assert idle({"spec": spec}, 7200, None).money is None
    assert idle({"spec": spec}, 7200, load_prices("gke")).money is None
    with pytest.raises(ConfigError, match=r"--prices: .*did you mean eks\?"):
        load_prices("ekss")


def test_what_was_measured_says_how_long_a_run_takes(plan_tiny: Callable[..., TrainPlan]) -> None:
    from raystack.runs import ledger
    from raystack.runs.ledger import Entry
    from raystack.runs.pace import pace
    from raystack.storage import Storage

    before = plan_tiny(run_id="tiny-20260101-120000-abcd")
    storage = Storage(before.paths.folder)
    storage.make("")
    storage.write("config.yaml", "training: {epochs: 2}")
    ledger.write(storage, [Entry(1, 0.0, workers=1, steps=6, trained_s=3.0, total_steps=6, global_batch=32)])
    assert pace(plan_tiny("training.epochs=20")) == Pace("tiny-20260101-120000-abcd", 0.5, 60)
    assert pace(plan_tiny("training.batch.global=16")) is None
    storage.write("config.yaml", "{training: {epochs: 2}, resources: {gpus_per_worker: 1}}")
    assert pace(plan_tiny()) is None, "its workers had a GPU"


def test_each_group_of_a_cluster_costs_as_its_own_machine_does() -> None:
    groups = (
        "target.groups={"
        "data: {workers: 3, gpus: 0, cpus: 2, node_selector: {node.kubernetes.io/instance-type: m5.2xlarge}},"
        "spot: {workers: 2, gpus: 1, spot: {enabled: true},"
        " node_selector: {node.kubernetes.io/instance-type: g5.2xlarge}},"
        "away: {workers: 0}}"
    )
    found = costs(*H100, groups)
    assert found.per_hour(16) == pytest.approx(2 * 55.04 + 3 * 0.384 * 2 / 8 + 2 * 0.4992)
    assert found.source.split("; ")[1:] == [
        "head not counted",
        "3 of group data on m5.2xlarge 0.29",
        "2 of group spot on g5.2xlarge on spot 1.00",
    ]
    grown = costs(*H100, groups.replace("workers: 3", "workers: [1, 3]"), "target.autoscaling.enabled=true")
    assert grown.per_hour(16) == pytest.approx(2 * 55.04 + 0.384 * 2 / 8 + 2 * 0.4992)
    own = costs(
        *KUBE, "prices.worker_per_hour=2", "prices.head_per_hour=0.5", "target.groups={more: {workers: 3}}"
    )
    assert own.per_hour(4) == pytest.approx(4 * 2 + 0.5 + 3 * 2)


@pytest.mark.parametrize(
    ("machine", "each"), [("gke-a3", 88.49 / 8), ("gke-a2", 29.38708 / 8), ("gke-g2", 0.853624)]
)
def test_the_machines_of_gke_have_a_price_without_a_label_of_their_type(machine: str, each: float) -> None:
    assert costs(*KUBE, "prices=gke", f"machine={machine}").per_hour(1) == pytest.approx(each)


def test_a_pod_with_the_tpus_of_a_host_costs_the_whole_machine() -> None:
    table = (
        "prices={machine: ct5lp-hightpu-4t, table: {here: {ct5lp-hightpu-4t: {on_demand: 4.8, cpus: 112}}}}"
    )
    tpu = "target.worker.tpu={type: v5e, topology: 2x4, chips: 4}"
    assert costs(*KUBE, table, tpu, "resources.workers=2").per_hour(2) == pytest.approx(2 * 4.8)
    assert costs(*KUBE, table, "resources.cpus_per_worker=14").per_hour(2) == pytest.approx(2 * 4.8 / 8)
