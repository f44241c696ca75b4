"""Passes by padded tokens: none is larger than the budget, each sample counts once, and the run is that of
any other split, under every strategy and on any number of workers.
"""

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from begun.task import Begun
from begun_workers import lines, losses, on_workers, planned, run

from raystack.config import RunConfig, load
from raystack.errors import ConfigError, PlanError
from raystack.events import Evaluated
from raystack.plan import TrainPlan, plan_training
from raystack.plan.batch import Batch
from raystack.plan.describe import rows
from raystack.plan.memory import micro_batches_to_profile
from raystack.plan.scale import plan_workers
from raystack.training.data import BatchPlan, SampleOrder, sample_order
from raystack.training.data.batch_plan import split_by_tokens
from raystack.training.data.token_budget import TokenBudget, costliest
from raystack.training.profile.measure import measure

TOKENS = 24
BUDGET = f"training.batch.micro_tokens={TOKENS}"
STRATEGIES = ("ddp", "fsdp", "zero1", "zero2", "zero3")


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(5))
def test_every_sample_counts_once_in_passes_within_the_budget(workers: int, seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 100, 1000)
    budget = TokenBudget(SampleOrder(1000, seed), lengths.tolist(), 256)
    batch = Batch(96, 1, 96 // workers, workers, tokens=256)
    schedules = [BatchPlan(batch, 1000, rank, budget=budget) for rank in range(workers)]
    passes = 0
    for step in range(11):
        by_worker = [schedule.micro_batches(step) for schedule in schedules]
        assert len({len(each) for each in by_worker}) == 1
        every = list(chain(*by_worker))
        start, stop = schedules[0].consumed(step), schedules[0].consumed(step + 1)
        counted = [position for one in every if one.weight for position in one.positions]
        assert sorted(counted) == list(range(start, stop))
        for one in every:
            samples = lengths[SampleOrder(1000, seed).at(np.array(one.positions))]
            assert samples.max() * len(samples) <= 256
            assert one.weight in (0.0, pytest.approx(len(samples) * workers / (stop - start)))
        passes += len(by_worker[0])
    # No split of unsorted samples into passes of one size comes near: 2 samples are the most that always fit.
    assert passes * workers * 256 < 1.6 * lengths.sum() + 11 * workers * 256


def test_a_step_has_the_same_samples_on_any_number_of_workers_and_passes_at_one_time_cost_the_same() -> None:
    lengths = [1 + index % 50 for index in range(200)]
    budget = TokenBudget(SampleOrder(200, 3), lengths, 100)
    for workers in (1, 2, 4):
        ranks = [budget.split(40, 80, workers, rank) for rank in range(workers)]
        assert sorted(one for mine in ranks for positions, _ in mine for one in positions) == list(
            range(40, 80)
        )
        for together in zip(*ranks, strict=True):
            costs = [cost(lengths, positions) for positions, _ in together]
            assert min(costs) > 0.6 * max(costs)


def cost(lengths: list[int], positions: tuple[int, ...]) -> int:
    found = [lengths[index] for index in SampleOrder(200, 3).at(np.array(positions))]
    return int(max(found)) * len(found)


def test_an_evaluation_keeps_the_order_and_a_sample_over_the_budget_is_alone() -> None:
    lengths = [3, 9, 2, 2, 40, 1, 1, 8]
    for workers in (1, 2, 3):
        parts = [split_by_tokens(lengths, 18, workers, rank) for rank in range(workers)]
        assert len({len(part) for part in parts}) == 1
        ranges = [range(start, stop) for part in parts for start, stop, counts in part if counts]
        assert list(chain(*ranges)) == list(range(8))
        assert range(4, 5) in ranges
        assert all(max(lengths[i] for i in each) * len(each) <= 18 for each in ranges if 4 not in each)


def test_the_costliest_passes_are_found_without_looking_at_each_step() -> None:
    assert costliest([1, 2, 3, 4], 8) == [[2, 3]]
    # Two of 5 are more than one of 6.
    assert costliest([5, 5, 6, 1], 10) == [[0, 1], [2]]
    assert costliest([7], 3) == [[0]]


def plain(plan: TrainPlan) -> dict[int, float]:
    """The losses of a plain torch loop, which takes the samples of a step one by one."""
    task: Any = Begun(**{**plan.config.task.args, "ledger": ""})
    torch.manual_seed(plan.seed)
    model, data = task.model(), task.train_data()
    config: Any = plan.training.optimizer
    groups = [
        {"params": [one for one in model.parameters() if (one.dim() >= 2) is decays], "weight_decay": decay}
        for decays, decay in ((True, config.weight_decay), (False, 0.0))
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps)
    order = sample_order(data, plan.seed, plan.training.data, plan.batch.global_)
    result = {}
    for step, start in enumerate(range(0, len(data), plan.batch.global_)):
        samples = order.at(np.arange(start, min(start + plan.batch.global_, len(data))))
        batches = [task.collate([data[int(index)]]) for index in samples]
        losses = torch.cat([task.losses(model, batch) for batch in batches])
        words = torch.tensor([batch["ids"].shape[1] for batch in batches])
        weights = torch.ones_like(words) if task.kind == "mean" else words
        loss = (losses * weights).sum() / weights.sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        result[step + 1] = float(loss.detach())
    return result


COUNT = 41  # five steps, and one of a single sample
RUNS: dict[str, list[str]] = {
    **{strategy: [f"strategy={strategy}"] for strategy in STRATEGIES},
    "pair-fsdp": ["strategy=fsdp", "task.args.kind=pair"],
    "pair-zero3": ["strategy=zero3", "task.args.kind=pair"],
    "bucket": ["training.data.bucket=2", "training.data.loaders=2"],
}
PART, WHOLE = "training={epochs: null, steps: 3}", "training={epochs: 1, steps: null}"
COMMON = [BUDGET, f"task.args.count={COUNT}", "training.clip_norm=100"]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """How three steps on two workers and the rest on one ended, and the other way round, with the folders."""
    result: dict[str, Any] = {}
    for way in ((2, 1), (1, 2)):
        folder = tmp_path_factory.mktemp("tokens")
        first = {count: PART if count == way[0] else WHOLE for count in way}
        plans = [(name, [*COMMON, *options, first[2]], [first[1]]) for name, options in RUNS.items()]
        result[f"{way[0]} to {way[1]}"] = folder, on_workers(folder, plans, *way)
    return result


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("way", ["2 to 1", "1 to 2"])
@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_that_of_a_plain_loop_under_every_strategy_and_across_world_sizes(
    ended: dict[str, Any], name: str, way: str
) -> None:
    folder, counts = ended[way]
    together: dict[int, float] = {}
    for count in counts.values():
        assert isinstance(count[name], dict), count[name]
        together |= {int(step): loss for step, loss in count[name].items()}
    plan = planned(folder, *COMMON, *RUNS[name], WHOLE, run=name)
    assert together == pytest.approx(plain(plan), rel=2e-6)

    passes = [line for rank in "01" for line in lines(folder, rank, name)]
    assert all(line["shape"][0] * line["shape"][1] <= TOKENS for line in passes)
    assert sorted({index for line in passes for index in line["samples"]}) == list(range(COUNT))
    # One sample on two workers: the other one repeats it, and its loss does not count.
    assert sum(len(line["samples"]) for line in passes) == COUNT + (way == "1 to 2")


@pytest.mark.slow
def test_the_random_numbers_of_a_sample_do_not_depend_on_the_split(tmp_path: Path) -> None:
    drawn = []
    for name, options in {
        "tokens": [BUDGET],
        "few": ["training.batch.micro_tokens=12"],
        "samples": [],
    }.items():
        run(tmp_path, *options, name=name)
        passes = lines(tmp_path, "0", name)
        pairs = [zip(line["samples"], line["drawn"], strict=True) for line in passes]
        drawn.append(dict(chain(*pairs)))
    assert drawn[0] == drawn[1] == drawn[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task.args.bare=true"], r"training.batch.micro_tokens: needs samples by index and their lengths"),
        (
            ["task.args.longest=30"],
            r"no pass can hold sample \d+ of length \d+.*\(got 24\); set .*=30 ",
        ),
        (["task.args.change={lengths: [1, 2]}"], r"`lengths` has one entry for each of 40 samples \(got 2\)"),
    ],
)
def test_what_cannot_be_split_is_refused_before_the_first_step(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, BUDGET, *overrides)
    assert not lines(tmp_path, "0")


@pytest.mark.parametrize("key", ["micro=4", "micro=auto", "accumulation=2"])
def test_the_budget_is_in_place_of_the_other_sizes(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"micro_tokens makes the passes, so there is no {key[:5]}"):
        planned(tmp_path, BUDGET, f"training.batch.{key}")
    with pytest.raises(ConfigError, match=r"micro_tokens needs the global batch"):
        planned(tmp_path, "training.batch={global: null, micro_tokens: 24}")
    with pytest.raises(PlanError, match=r"global has to be a multiple of 3 workers"):
        planned(tmp_path, BUDGET, "resources={workers: 3}")


def test_the_plan_says_what_is_known_of_the_passes(tmp_path: Path) -> None:
    plan = planned(tmp_path, BUDGET, "resources={workers: 2}")
    shown = dict(rows(plan))
    assert shown["batch"] == "8 over 2 worker(s), in passes of up to 24 padded tokens"
    assert shown["evaluate"].endswith("24 tokens per pass")
    assert dict(rows(planned(tmp_path, BUDGET, "training.evaluate.batch=3")))["evaluate"].endswith("batch 3")


@pytest.mark.slow
def test_the_memory_plan_measures_the_costliest_pass() -> None:
    config = Path(__file__).with_name("begun") / "config.yaml"
    by_tokens = load(config, [BUDGET, "task.args.longest=12"])
    # Two samples of 12 are a pass of the most tokens, and of the longest sample.
    by_samples = load(config, ["training.batch.micro=2", "task.args.longest=12"])
    assert activations(by_tokens) == activations(by_samples) > 0


def activations(config: RunConfig) -> int:
    workers = plan_workers(config.resources)
    profile = measure(config, micro_batches_to_profile(config.training.batch, workers))
    memory = plan_training(config, "begun-1", profile).memory
    assert memory is not None
    return memory.estimate.device["activations"]


@pytest.mark.slow
def test_an_evaluation_is_split_by_tokens_as_well(tmp_path: Path) -> None:
    metrics = []
    for name, options in {"tokens": [BUDGET], "samples": []}.items():
        events = run(tmp_path, *options, "training={epochs: null, steps: 1}", name=name)
        assert losses(events)
        metrics += [event.metrics["eval/loss"] for event in events if isinstance(event, Evaluated)]
    assert metrics[0] == pytest.approx(metrics[1], rel=1e-6)
