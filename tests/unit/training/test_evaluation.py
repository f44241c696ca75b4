"""Several eval sets, torchmetrics' objects and functions of all outputs: exact under every strategy, on one
worker and on two, and a mistake in them is found before the first step.
"""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from measured_workers import CONFIG, Stages, Told, planned, trained

from raystack.checkpoint import MODEL, CheckpointStore
from raystack.checkpoint.weights import read_model
from raystack.code.loading import load
from raystack.config.task import Task as TaskConfig

pytestmark = pytest.mark.slow
STRATEGIES = ("ddp", "fsdp", "zero1", "zero2", "zero3")
SETS = {"near": 11, "one": 1}
WHOLE = ["task.entry=task:Whole", "task.args.sets={near: 11, one: 1}", "training.epochs=1"]
BEST = "training.checkpoint.keep_best={metric: eval/near/area, mode: max}"
SAVES = "training.checkpoint.every_steps=2"
BROKEN = {
    "kind": r"task: meters['auroc']: a meter is a torchmetrics.Metric (got function)",
    "vector": r"task: meters['f1']: compute returns one number (got shape [2])",
    "update": r"task: meters['pearson']: its update raised ",
    "outputs": r"task: outputs['scores']: outputs returns tensors of shape [3, ...], by sample (got",
    "summary": r"task: summarize['area']: summarize returns a mapping from names to numbers (got Tensor)",
    "name": r"task: summarize: 'error' is a metric of metrics, too; give one another name",
}

STAGES: Stages = [
    (
        2,
        {
            **{f"{name} whole": [*WHOLE, f"strategy={name}", BEST, SAVES] for name in STRATEGIES},
            **{f"broken {name}": [*WHOLE, f"task.args.broken={name}"] for name in BROKEN},
            "broken ragged": [*WHOLE, "task.args={broken: ragged, sets: {a: 11}}"],
            "broken raises": [*WHOLE, "task.args.broken=raises"],
            "broken late": [*WHOLE, "task.args={broken: late, sets: null}"],
            "dot": [*WHOLE, "task.args.sets={..: 3}"],
            "slash": [*WHOLE, "task.args.sets={a/b: 3}"],
            "none": [*WHOLE, "task.args.broken=no sets"],
            "empty": [*WHOLE, "task.args.sets={a: 3, b: 0}"],
            "unknown": [*WHOLE, BEST.replace("near", "far"), SAVES],
            "unmeasured": [
                *WHOLE,
                "training.evaluate.every_steps=1",
                "training.early_stopping={metric: eval/near/eror, mode: min, patience: 1}",
            ],
        },
    ),
    (1, {"inline whole": [*WHOLE, BEST, SAVES]}),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def told(folder: Path) -> dict[str, Told]:
    return trained(folder, STAGES)


def directly(folder: Path, case: str) -> dict[str, float]:
    """The metrics of a run's exported model, as one pass over each whole set has them."""
    store = CheckpointStore(planned(folder, case, 1, WHOLE).paths.checkpoints)
    step = store.manifests()[-1].step
    with store.fetch(step, MODEL) as exported:
        _, model, _ = read_model(exported)
    task: Any = load(TaskConfig(entry="task:Whole", folder=str(CONFIG.parent), args={"sets": SETS}))
    found = {}
    with torch.no_grad():
        for name, data in task.eval_data().items():
            batch = torch.utils.data.default_collate([data[index] for index in range(len(data))])
            metrics, meters = dict(task.metrics(model, batch)), task.meters()
            for meter in meters.keys() & metrics.keys():
                given = metrics.pop(meter)
                update = meters[meter].update
                update(**given) if isinstance(given, dict) else update(*given) if isinstance(
                    given, tuple
                ) else update(given)
                found[f"eval/{name}/{meter}"] = float(meters[meter].compute())
            found |= {f"eval/{name}/{key}": float(value.mean()) for key, value in metrics.items()}
            summary = task.summarize(task.outputs(model, batch))
            found |= {f"eval/{name}/{key}": float(value) for key, value in summary.items()}
    return found


@pytest.mark.filterwarnings("ignore::UserWarning:torchmetrics")  # of what one sample does not say
@pytest.mark.parametrize("case", [*(f"{strategy} whole" for strategy in STRATEGIES), "inline whole"])
def test_metrics_over_whole_sets_are_those_of_one_pass_over_each(
    told: dict[str, Told], folder: Path, case: str
) -> None:
    assert told[case]["error"] is None
    step, _, found = told[case]["evaluations"][-1]
    metrics = dict(found)
    assert step == 4
    for name in SETS:
        assert math.isnan(metrics.pop(f"eval/{name}/never"))
    assert metrics["eval/near/in_order"] == metrics["eval/one/in_order"] == 1
    assert metrics == pytest.approx(directly(folder, case), rel=1e-5, nan_ok=True)


def test_the_best_checkpoint_is_chosen_by_a_metric_of_a_set(told: dict[str, Told]) -> None:
    areas = {step: metrics["eval/near/area"] for step, _, metrics in told["ddp whole"]["evaluations"]}
    assert sorted(areas) == [2, 4]
    assert told["ddp whole"]["chosen"] == max(areas, key=lambda step: (areas[step], -step))


@pytest.mark.parametrize("name", BROKEN)
def test_a_mistake_in_them_is_refused_before_the_first_step(told: dict[str, Told], name: str) -> None:
    case = told[f"broken {name}"]
    assert BROKEN[name] in case["error"]
    assert (case["kind"], case["steps"]) == ("ConfigError", {})


def test_what_one_batch_cannot_say_is_a_warning(told: dict[str, Told]) -> None:
    case = told["broken raises"]
    assert any(
        "task: summarize: ValueError: no positive class, tried on 3 samples of eval_data['near']" in text
        for text in case["warnings"]
    )
    assert "the evaluation after step 4, rank 0: ValueError: no positive class; see task.py:" in case["error"]


def test_a_summary_that_fails_ends_all_workers(told: dict[str, Told]) -> None:
    assert (
        "the evaluation after step 4, rank 0: ValueError: no positive class; see task.py:"
        in told["broken late"]["error"]
    )
    rule = "task: outputs['scores']: outputs has the same shape for every sample (got [2] and [3])"
    assert rule in told["broken ragged"]["error"]


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("dot", "task: eval_data: the name of a set, as a part of its metrics', has letters"),
        ("slash", "has letters, digits, spaces and '_-.:' only (got 'a/b')"),
        ("none", "task: eval_data: a mapping has at least one set (got {}); return None for no evaluation"),
        ("empty", "task: eval_data['b']: a dataset has at least one sample (got length 0)"),
        (
            "unknown",
            "keep_best.metric: the task does not measure it (got eval/far/area); did you mean 'eval/",
        ),
        ("unmeasured", "early_stopping.metric: the task does not measure it (got eval/near/eror); did you"),
    ],
)
def test_what_cannot_be_measured_is_refused(told: dict[str, Told], case: str, message: str) -> None:
    assert message in told[case]["error"]
    assert (told[case]["kind"], told[case]["steps"]) == ("ConfigError", {})
