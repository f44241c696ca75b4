"""What a run promises about its data, on one worker and on two: each sample once whatever is changed, the
same random numbers whoever draws them, no effect of padding, and errors told as the task raised them.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from multiprocessing import active_children
from pathlib import Path

import pytest
from sampled_workers import on_workers, passes, planned, train_on

from raystack.checkpoint import CheckpointStore
from raystack.checkpoint.weights import read_model
from raystack.errors import ConfigError, ExhaustedError, TrainingError
from raystack.events import Evaluated, Event, Stepped, Warned

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),  # more than this machine has cores
]


def run(storage: Path, *overrides: str, events: list[Event] | None = None) -> list[Event]:
    return train_on(planned(storage, *overrides), 0, 1, events)


def weights(storage: Path) -> list[float]:
    """All weights of the newest checkpoint's model."""
    store = CheckpointStore(planned(storage).paths.checkpoints)
    with store.fetch(store.manifests()[-1].step, "model") as folder:
        model = read_model(folder)[1]
    return [value for parameter in model.parameters() for value in parameter.detach().flatten().tolist()]


def samples(ledger: Path, rank: int = 0) -> list[int]:
    return [index for line in passes(ledger, rank) for index in line["samples"]]


def noise(ledger: Path, *ranks: int) -> dict[int, list[float]]:
    """The random numbers that each sample got; the last ones if it was read several times."""
    lines = [line for rank in ranks or (0,) for line in passes(ledger, rank)]
    return {
        index: drawn for line in lines for index, drawn in zip(line["samples"], line["noise"], strict=True)
    }


def losses(events: list[Event]) -> dict[int, float]:
    return {event.step: event.metrics["train/loss"] for event in events if isinstance(event, Stepped)}


def warnings(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Warned)]


# Position


def test_a_run_with_more_epochs_goes_on_from_the_samples_it_has_consumed(tmp_path: Path) -> None:
    options = ("task.args.count=100", "training.batch.global=32")
    for epochs in (1, 2, 3):
        events = run(tmp_path, *options, f"training.epochs={epochs}")
        assert list(losses(events)) == [4 * epochs - 3, 4 * epochs - 2, 4 * epochs - 1, 4 * epochs]
        seen = samples(tmp_path)
        assert sorted(seen[100 * (epochs - 1) :]) == list(range(100))
        (*_, last) = CheckpointStore(planned(tmp_path).paths.checkpoints).manifests()
        assert (last.step, last.samples) == (4 * epochs, 100 * epochs)


def test_the_global_batch_may_change_and_each_sample_still_comes_once_per_epoch(tmp_path: Path) -> None:
    counted = ("task.args.count=100",)
    run(tmp_path, *counted, "training={epochs: null, steps: 2, batch: {global: 32}}")
    run(tmp_path, *counted, "training.epochs=1", "training.batch.global=24")
    assert sorted(samples(tmp_path)) == list(range(100))
    assert [len(line["samples"]) for line in passes(tmp_path)] == [32, 32, 24, 12]
    events = run(tmp_path, *counted, "training={epochs: null, steps: 6, batch: {global: 50}}")
    assert list(losses(events)) == [5, 6]
    assert sorted(samples(tmp_path)[100:]) == list(range(100))


def test_a_run_that_is_longer_than_the_config_says_is_told(tmp_path: Path) -> None:
    run(tmp_path, "training.epochs=2")
    assert not losses(run(tmp_path, "training.epochs=2"))  # done at once
    with pytest.raises(
        ConfigError, match=r"training.epochs: the run has done 2 epochs already \(got 1\); .*epochs=2 or more"
    ):
        run(tmp_path, "training.epochs=1")
    with pytest.raises(
        ConfigError, match=r"training.steps: the run has done 16 steps already \(got 3\); .*steps=16 or more"
    ):
        run(tmp_path, "training={epochs: null, steps: 3}")
    assert sorted(samples(tmp_path)) == sorted([*range(64), *range(64)])


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        ([], ["training.optimizer={kind: sgd}"], r"its training.optimizer, which was adamw \(got sgd\)"),
        (
            ["training.optimizer={kind: sgd}"],
            ["training.optimizer={kind: sgd, momentum: 0.9}"],
            r"its training.optimizer, which was sgd \(got sgd with momentum\)",
        ),
        ([], ["experiment.seed=4"], r"its experiment.seed, which was 3 \(got 4\); set experiment.seed=3"),
    ],
)
def test_what_a_resumed_run_cannot_change_is_told(
    tmp_path: Path, first: list[str], then: list[str], message: str
) -> None:
    run(tmp_path, *first)
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, "training.epochs=2", *then)
    assert len(samples(tmp_path)) == 64


def test_drop_last_leaves_out_the_steps_that_are_smaller_and_loses_no_sample_of_a_longer_run(
    tmp_path: Path,
) -> None:
    options = ("task.args.count=33", "task.args.model=norm", "training.data.drop_last=true")
    assert list(losses(run(tmp_path, *options))) == [1, 2, 3, 4]
    events = run(tmp_path, *options, "training.epochs=8")
    assert max(losses(events)) == 33
    seen = samples(tmp_path)
    assert all(sorted(seen[start:stop]) == list(range(33)) for start, stop in pairwise(range(0, 265, 33)))
    with pytest.raises(ConfigError, match=r"training.data.drop_last: it leaves no step, .* one batch of 64"):
        run(tmp_path / "new", *options, "training.batch.global=64")


def test_a_warm_up_longer_than_the_run_is_told(tmp_path: Path) -> None:
    events = run(tmp_path, "training.schedule.warmup_steps=9")
    (warning,) = warnings(events)
    assert warning.startswith("training.schedule.warmup_steps: longer than the run's 8 steps")
    assert not warnings(run(tmp_path / "new", "training.schedule.warmup_steps=8"))


# Random numbers


def test_a_samples_random_numbers_belong_to_its_place_whoever_reads_it(tmp_path: Path) -> None:
    run(tmp_path / "plain")
    wanted = noise(tmp_path / "plain")
    assert len({tuple(drawn) for drawn in wanted.values()}) == 64
    for name, *options in (
        ["again"],
        ["one loader", "training.data.loaders=1"],
        ["three loaders", "training.data.loaders=3", "training.batch.micro=2"],
        ["rare", "task.args.rare=true"],
    ):
        run(tmp_path / name, *options)
        rare = "task.args.rare=true" in options
        assert noise(tmp_path / name) == {
            index: [0.0] * 3 if rare and index % 5 else drawn for index, drawn in wanted.items()
        }
    run(tmp_path / "plain", "training.epochs=2")
    assert not {tuple(drawn) for drawn in noise(tmp_path / "plain").values()} & {
        tuple(drawn) for drawn in wanted.values()
    }


def test_a_resumed_run_draws_what_the_unbroken_one_draws(tmp_path: Path) -> None:
    options = ("task.args.model=dropout", "training.batch.micro=4", "training.data.loaders=1")
    unbroken = losses(run(tmp_path / "whole", *options))
    head = run(tmp_path / "parts", *options, "training={epochs: null, steps: 3}")
    tail = run(tmp_path / "parts", *options)
    assert noise(tmp_path / "parts") == noise(tmp_path / "whole")
    assert {**losses(head), **losses(tail)} == unbroken
    assert passes(tmp_path / "parts") == passes(tmp_path / "whole")
    # Reading in the training process draws nothing of the step's.
    assert losses(run(tmp_path / "here", *options, "training.data.loaders=0")) == unbroken


def test_evaluations_draw_the_same_numbers_each_time(tmp_path: Path) -> None:
    events = run(tmp_path, "training.evaluate.every_steps=2", "training.data.loaders=1")
    means = [event.metrics["eval/noise"] for event in events if isinstance(event, Evaluated)]
    assert len(means) == 4
    assert len(set(means)) == 1
    events = run(tmp_path / "2", "training.evaluate.batch=2")
    assert [event.metrics["eval/noise"] for event in events if isinstance(event, Evaluated)] == means[:1]


@pytest.mark.parametrize("kind", ["shards", "sized"])
def test_a_stream_that_gives_each_loader_a_part_is_read_whole(tmp_path: Path, kind: str) -> None:
    """It also shuffles by the global generators: its order, too, is the same for every reader."""
    options = (f"task.args.data={kind}", "training.data.shuffle=false")
    for loaders in (0, 2, 3):
        run(
            tmp_path / str(loaders),
            *options,
            "training={epochs: null, steps: 8}",
            f"training.data.loaders={loaders}",
        )
        assert passes(tmp_path / str(loaders)) == passes(tmp_path / "0")
    assert sorted(samples(tmp_path / "0")) == list(range(64))
    assert samples(tmp_path / "0") != list(range(64))
    run(tmp_path / "parts", *options, "training={epochs: null, steps: 3}")
    run(tmp_path / "parts", *options, "training={epochs: null, steps: 8}", "training.data.loaders=2")
    assert passes(tmp_path / "parts") == passes(tmp_path / "0")


# Padding


@pytest.mark.parametrize("model", ["norm", "spread"])
def test_passes_that_no_worker_needs_are_left_out(tmp_path: Path, model: str) -> None:
    events = run(tmp_path, "task.args.count=34", f"task.args.model={model}", "training.batch.micro=2")
    assert len(losses(events)) == 5
    assert [len(line["samples"]) for line in passes(tmp_path)] == [2] * 17
    if model == "norm":
        store = CheckpointStore(planned(tmp_path).paths.checkpoints)
        with store.fetch(5, "model") as folder:
            assert read_model(folder)[1].state_dict()["1.num_batches_tracked"] == 17


@pytest.mark.filterwarnings("ignore:std")  # what torch says of a single sample
def test_a_last_step_of_one_sample_is_told_before_it_and_where_it_fails(tmp_path: Path) -> None:
    events: list[Event] = []
    with pytest.raises(
        TrainingError,
        match=r"step 5, rank 0: ValueError: Expected more than 1 value .*drop_last=true leaves it",
    ):
        run(tmp_path, "task.args.count=33", "task.args.model=norm", events=events)
    (warning,) = warnings(events)
    assert "BatchNorm gets a single sample in the run's last step" in warning
    with pytest.raises(
        TrainingError, match=r"step 5: the loss is not a finite number; .*training.data.drop_last=true"
    ):
        run(tmp_path / "spread", "task.args.count=33", "task.args.model=spread")


# Errors


def test_an_error_in_a_loader_process_is_told_as_one_in_the_training_process(tmp_path: Path) -> None:
    told: list[tuple[str, str | None]] = []
    for loaders in (0, 1):
        with pytest.raises(TrainingError) as error:
            run(tmp_path / str(loaders), "task.args.broken=5", f"training.data.loaders={loaders}")
        told.append((str(error.value), error.value.trace))
    assert told[0] == told[1]
    assert "UnreadableError: broken image 5; see task.py:" in told[0][0]
    assert len(told[0][0].splitlines()) == 1
    assert told[0][1] is not None
    assert told[0][1].startswith('  File "task.py", line')
    assert not active_children()


@pytest.mark.parametrize("thread", [False, True])  # Ray Train's workers train in a thread
def test_a_loader_process_that_the_system_kills_is_told_in_a_line(tmp_path: Path, thread: bool) -> None:
    def trained() -> None:
        run(tmp_path, "task.args.killed=5", "training.data.loaders=1")

    with pytest.raises(ExhaustedError) as error, ThreadPoolExecutor() as pool:
        pool.submit(trained).result() if thread else trained()
    (line,) = str(error.value).splitlines()
    assert "is killed by signal: Killed" in line
    assert "a loader process was ended by the system, which has most likely run out of memory" in line
    assert "fewer training.data.loaders" in line


def test_a_loader_process_that_crashes_is_not_told_as_out_of_memory(tmp_path: Path) -> None:
    options = ("task.args.killed=5", "task.args.signal=SIGSEGV", "training.data.loaders=1")
    with pytest.raises(TrainingError, match=r"a loader process ended \(got .*: Segmentation fault") as error:
        run(tmp_path, *options)
    assert not isinstance(error.value, ExhaustedError)


# Two workers


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs on two gloo workers, by name."""
    folder = tmp_path_factory.mktemp("two")
    plans = {
        "plain": ["training.data.loaders=1"],
        "shards": ["task.args.data=sized", "training.data.shuffle=false", "training.data.loaders=2"],
    }
    for strategy in ("ddp", "fsdp", "zero2", "zero3"):
        for model, count in (("norm", 34), ("spread", 35), ("norm", 36)):
            plans[f"{strategy} {model} {count}"] = [
                f"strategy={strategy}",
                f"task.args.model={model}",
                f"task.args.count={count}",
            ]
        plans[f"{strategy} plain 35"] = [f"strategy={strategy}", "task.args.count=35"]
        # The last step has 5 samples: two passes on worker 0, one and padding on worker 1.
        plans[f"{strategy} plain 37"] = [
            f"strategy={strategy}",
            "task.args.count=37",
            "training.batch.micro=2",
        ]
    plans["micro"] = ["task.args.model=norm", "task.args.count=34", "training.batch.micro=2"]
    for name in ("split", "uneven", "unseeded"):
        plans[name] = [f"task.args.data={name}", "training.data.loaders=1"]
    steps = "training={epochs: null, steps: 2, data: {shuffle: false}}"
    plans["split stream"] = ["task.args.data='split stream'", steps]
    ended = on_workers(folder, 2, [[str(folder / name), *options] for name, options in plans.items()])
    (folder / "ended.json").write_text(json.dumps(dict(zip(plans, ended, strict=True))))
    return {name: folder / name for name in plans}


def ended(two: dict[str, Path]) -> dict[str, str]:
    read: dict[str, str] = json.loads((two["plain"].parent / "ended.json").read_text())
    return read


def test_data_that_divides_itself_by_rank_is_told_before_the_first_step(two: dict[str, Path]) -> None:
    failed = {name: error for name, error in ended(two).items() if error}
    assert list(failed) == ["split", "uneven", "split stream"]
    assert failed["split"] == failed["split stream"]
    assert failed["split"].startswith(
        "task: train_data: is the same on every worker (got another first sample on each rank); leave out"
    )
    assert "train_data: is the same on every worker (got 64, 63 samples by rank)" in failed["uneven"]
    assert sorted(samples(two["unseeded"], 0) + samples(two["unseeded"], 1)) == list(range(64))


def test_two_workers_draw_for_a_sample_what_one_draws(two: dict[str, Path], tmp_path: Path) -> None:
    run(tmp_path)
    assert noise(two["plain"], 0, 1) == noise(tmp_path)
    assert sorted(samples(two["plain"], 0) + samples(two["plain"], 1)) == list(range(64))
    steps = [[line["step"] for line in passes(two["plain"], rank)] for rank in (0, 1)]
    assert not {tuple(drawn) for drawn in steps[0]} & {tuple(drawn) for drawn in steps[1]}


def test_two_workers_read_a_stream_that_divides_itself_whole(two: dict[str, Path], tmp_path: Path) -> None:
    run(tmp_path, "task.args.data=sized", "training.data.shuffle=false")
    halves = [passes(two["shards"], rank) for rank in (0, 1)]
    joined = [[*a["samples"], *b["samples"]] for a, b in zip(*halves, strict=True)]
    assert joined == [line["samples"] for line in passes(tmp_path)]


@pytest.mark.parametrize("count", [35, 37])
@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "zero2", "zero3"])
def test_a_worker_without_samples_in_a_pass_changes_nothing(
    two: dict[str, Path], tmp_path: Path, strategy: str, count: int
) -> None:
    run(tmp_path, f"task.args.count={count}")
    assert weights(two[f"{strategy} plain {count}"]) == pytest.approx(weights(tmp_path), rel=1e-4, abs=1e-6)


def test_padding_repeats_a_pass_that_counts(two: dict[str, Path]) -> None:
    """The last step has two samples. Worker 0 trains on both; worker 1 runs them only for the collectives."""
    for name, sizes in (("ddp norm 34", [4, 4, 4, 4, 2]), ("micro", [2] * 9)):
        lines = [passes(two[name], rank) for rank in (0, 1)]
        assert [len(line["samples"]) for line in lines[0]] == sizes
        assert [len(line["samples"]) for line in lines[1]] == sizes
        assert lines[0][-1]["samples"] == lines[1][-1]["samples"]
