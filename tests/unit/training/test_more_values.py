"""What a loss returns beside itself, and the progress that it is given: the same however a step is split."""

import pytest
from measured_workers import Stages, Told, trained

pytestmark = pytest.mark.slow
STRATEGIES = ("ddp", "fsdp", "zero1", "zero2", "zero3")
MORE = ["task.entry=task:More", "training.data.shuffle=false", "training.epochs=2", "training.batch.micro=2"]
PAIR = "task.args.pair=true"
CASES = [*(f"{name} {how}" for name in STRATEGIES for how in ("mean", "pair")), "inline pair"]
KIND = "a value beside the loss is a number, or a pair of a sum and its count"
SAME = "task: loss: loss returns the same values beside itself"
WRONG = {
    "vector": f"task: loss['ids']: {KIND} (got shape [",
    "text": f"task: loss['ids']: {KIND} (got str)",
    "taken": "task: loss: a value has a name of letters, digits and '/_-.:', and not loss, lr,",
    "name": "(got 'a=b')",
    "by worker": f"{SAME} on every worker (got epochs,",
    "by batch": f"{SAME} for every batch (got epochs,",
    "three": "(got a tuple of Tensor, int, dict); what else is to be seen goes into a mapping: return loss,",
}
STAGES: Stages = [
    (
        2,
        {
            **{f"{name} mean": [*MORE, f"strategy={name}", "stop_at=6"] for name in STRATEGIES},
            **{f"{name} pair": [*MORE, f"strategy={name}", PAIR] for name in STRATEGIES},
            **{f"wrong {name}": [*MORE, f"task.args.wrong={name}"] for name in WRONG if name != "by batch"},
        },
    ),
    (
        1,
        {
            **{f"{name} mean > on 1": [*MORE, f"strategy={name}"] for name in STRATEGIES},
            "inline pair": [*MORE, PAIR],
            "wrong by batch": [*MORE, "task.args.wrong=by batch"],
            "keyword": ["task.entry=task:Keyword", "training.epochs=1"],
            "defaults": ["task.entry=task:Defaults", "training.epochs=1"],
        },
    ),
]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Told]:
    return trained(tmp_path_factory.mktemp("more"), STAGES)


def expected(step: int) -> dict[str, float]:
    """The values of a step over eight of two epochs of 30 samples each, of the last over four."""
    positions = range(8 * (step - 1), min(8 * step, 60))
    ids = [position % 30 for position in positions]
    odd = [one for one in ids if one % 2]
    done = step - 1
    return {
        "train/ids": sum(ids) / len(ids),
        "train/odd": sum(odd) / len(odd),
        "train/step": done,
        "train/fraction": done / 8,
        "train/steps": 8,
        "train/epochs": 8 * done / 30,
    }


@pytest.mark.parametrize("case", CASES)
def test_values_are_means_over_the_samples_or_terms_of_a_step(told: dict[str, Told], case: str) -> None:
    steps = dict(told[case]["steps"])
    if case.endswith("mean"):  # stopped, and gone on with on one worker
        steps |= told[f"{case} > on 1"]["steps"]
    assert [*steps] == [str(step) for step in range(1, 9)]
    for step, metrics in steps.items():
        found = {name: metrics[name] for name in expected(1)}
        assert found == pytest.approx(expected(int(step)), rel=1e-6)
        assert metrics["train/error"] == pytest.approx(metrics["train/loss"], rel=1e-5)
        assert metrics["train/epoch"] == pytest.approx(min(8 * int(step), 60) / 30)  # the loop's own
        assert "train/last/nothing" not in metrics


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_value_is_refused_in_the_first_step(told: dict[str, Told], name: str) -> None:
    case = told[f"wrong {name}"]
    assert WRONG[name] in case["error"]
    assert case["steps"] == {}


def test_the_progress_is_given_to_whom_takes_it(told: dict[str, Told]) -> None:
    assert [metrics["train/step"] for metrics in told["keyword"]["steps"].values()] == [0, 1, 2, 3]
    assert told["defaults"]["error"] is None
