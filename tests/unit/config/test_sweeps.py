"""Hydra's sweeps on the command line mean the same as a space in the file."""

from pathlib import Path
from typing import Any

import pytest

from raystack.config import RunConfig, load
from raystack.config.sweeps import Sweeps, placed, places
from raystack.errors import ConfigError, PlanError
from raystack.plan import plan_tuning

FILE = """\
defaults: [resources: inline, strategy: ddp, _self_]
experiment: {name: demo}
task: {entry: "task:Demo", args: {width: 32}}
training: {epochs: 20, batch: {global: 64}, optimizer: {kind: adamw}}
tuning:
  metric: eval/loss
  mode: min
  space:
    training.optimizer.lr: {loguniform: [1.0e-4, 1.0e-1]}
    training.optimizer.betas: {when: {training.optimizer.kind: adamw}, choice: [[0.9, 0.95]]}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(FILE)
    return path


def space(config: RunConfig) -> dict[str, Any]:
    assert config.tuning is not None
    return {
        path: domain.model_dump(exclude_defaults=True, mode="json")
        for path, domain in config.tuning.space.items()
    }


@pytest.mark.parametrize(
    ("override", "domain"),
    [
        ("training.optimizer.lr=interval(1e-3,1e-1)", {"uniform": [1e-3, 1e-1]}),
        ("training.optimizer.lr=tag(log,interval(1e-3,1))", {"loguniform": [1e-3, 1.0]}),
        ("training.epochs=int(interval(1,9))", {"randint": [1, 9]}),
        ("training.epochs=tag(log,int(interval(1,9)))", {"lograndint": [1, 9]}),
        ("training.epochs=range(1,10,2)", {"quniform": [1, 9, 2]}),
        ("training.epochs=range(9,0,-4)", {"quniform": [1, 9, 4]}),
        ("training.epochs=range(3,4)", {"choice": [3]}),
        ("training.optimizer.lr=range(0.1,0.35,0.1)", {"quniform": [0.1, 0.3, 0.1]}),
        ("task.args.width=choice(8,16)", {"choice": [8, 16]}),
        ("task.args.width=8,16", {"choice": [8, 16]}),
        ("+task.args.depth=choice(1,2)", {"choice": [1, 2]}),
        ("task.args.name='a,b',null,c", {"choice": ["a,b", None, "c"]}),
        ("task.args.sizes=choice([1,2],[3])", {"choice": [[1, 2], [3]]}),
        ("training.optimizer=choice({kind: sgd},{lr: 0.1})", {"choice": [{"kind": "sgd"}, {"lr": 0.1}]}),
    ],
)
def test_a_sweep_is_an_entry_of_the_space(override: str, domain: Any, file: Path) -> None:
    config = load(file, [override], sweeps="searched")
    assert space(config)[override.partition("=")[0].lstrip("+")] == domain
    plan_tuning(config, "demo-1")


@pytest.mark.parametrize(
    ("override", "names"),
    [
        ("strategy=ddp,zero1", ["ddp", "zero1"]),
        ("strategy=choice(ddp,zero1)", ["ddp", "zero1"]),
        ("strategy=glob([z*,d*],exclude=*3)", ["ddp", "zero1", "zero2"]),
    ],
)
def test_a_sweep_over_a_group_chooses_between_its_files(override: str, names: list[str], file: Path) -> None:
    found = space(load(file, [override], sweeps="searched"))["strategy"]["group"]
    assert [*found] == names
    assert found["ddp"]["training.strategy"]["kind"] == "ddp"


def test_a_sweep_replaces_the_domain_of_the_file_and_keeps_its_condition(file: Path) -> None:
    found = space(load(file, ["training.optimizer.betas=choice([0.8,0.9])"], sweeps="searched"))
    assert found["training.optimizer.betas"] == {
        "choice": [[0.8, 0.9]],
        "when": {"training.optimizer.kind": "adamw"},
    }


def test_one_value_for_a_searched_path_takes_it_out_of_the_space(file: Path) -> None:
    config = load(file, ["training.optimizer.lr=0.5"], sweeps="searched")
    assert config.training.optimizer.kind == "adamw"
    assert config.training.optimizer.lr == 0.5
    assert [*space(config)] == ["training.optimizer.betas"]


def test_an_entry_of_the_space_can_be_overridden_by_its_dotted_path(file: Path) -> None:
    found = space(load(file, ["tuning.space.training.optimizer.lr.uniform=[0.1,1]"], sweeps="searched"))
    assert found["training.optimizer.lr"] == {"uniform": [0.1, 1.0]}


def test_what_the_file_leaves_open_is_given_by_a_sweep(file: Path) -> None:
    file.write_text(FILE.replace("width: 32", 'width: "???"'))
    config = load(file, ["task.args.width=choice(8,16)"], sweeps="searched")
    assert config.task.args["width"] == 8


@pytest.mark.parametrize(
    ("sweeps", "overrides", "search"),
    [
        ("grid", ("training.optimizer.lr=0.1,0.2", "training.epochs=range(1,4)"), "grid"),
        ("grid", ("training.optimizer.lr=interval(0.1,0.2)",), "random"),
        ("grid", ("training.optimizer.lr=0.1,0.2", "tuning=tpe"), "tpe"),
        ("grid", ("training.optimizer.lr=0.1,0.2", "tuning.search.kind=gp"), "gp"),
        ("searched", ("training.optimizer.lr=0.1,0.2",), "random"),
    ],
)
def test_multirun_searches_lists_as_a_grid(
    sweeps: Sweeps, overrides: tuple[str, ...], search: str, file: Path
) -> None:
    config = load(file, overrides, sweeps=sweeps)
    assert config.tuning is not None
    assert config.tuning.search.kind == search
    if search == "grid":
        assert plan_tuning(config, "demo-1").trials == 2 * 3


@pytest.mark.parametrize(
    ("override", "rest"),
    [
        (
            "training.epochs=interval(1,5)",
            (
                "this key is a whole number (got an interval); write training.epochs=range(1,5), or"
                " int(interval(1,5))"
            ),
        ),
        (
            "training.optimizer.lr=interval(2,1)",
            "should have its lower bound first (got 2 and 1); interval(low,high)",
        ),
        (
            "training.optimizer.lr=tag(log,interval(0,1))",
            "should have bounds above 0: it is uniform in the logarithm (got 0)",
        ),
        ("training.epochs=range(5,1)", "the range is empty (got 5 to 1 by 1); range(low,high,step)"),
        ("training.epochs=range(1,5,0)", "the range is empty (got 1 to 5 by 0); range(low,high,step)"),
        ("training.epochs=tag(x,choice(1,2))", "the only tag is log, of an interval (got x); drop it"),
        ("training.epochs=shuffle(1,2)", "the search decides on the order of trials; drop shuffle"),
        ("training.epochs=glob(*)", "glob chooses from a config group; name the values: choice(a,b)"),
        ("strategy=glob(x*)", "no choice matches; choices: ddp, fsdp, zero1, zero2, zero3"),
        ("~training.epochs=1,2", "deletes, and a search needs values; drop the ~"),
        (
            "strategy@training.s=ddp,zero1",
            (
                "a search chooses from a group at its own place in the config (got @training.s); drop the"
                " package"
            ),
        ),
        ("hydra.x=1,2", "Hydra's own settings have no effect here; remove it"),
        ("training.epochs=[choice(1,2)]", "gives several values where one is expected; give one value"),
        (
            "training.optimizer.lr=log(1,2)",
            "there is no function log; write tag(log,interval(low,high))",
        ),
        ("strateg=ddp,zero1", "there is no config group 'strateg'; did you mean 'strategy'?"),
        ("strategy=ddp,zero4", "there is no 'zero4' in the config group (got zero4); did you mean zero3?"),
        (
            "tuning.space.training.optimizer.lr.uniform=[1,0.1]",
            "should have its lower bound first (got uniform [1, 0.1]); uniform: [low, high]",
        ),
        (f"task.args.x=choice({'9' * 120},1)", "a number has at most 100 digits"),
    ],
)
def test_an_impossible_sweep_is_one_line_with_its_override(override: str, rest: str, file: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(file, [override], sweeps="searched")
    (problem,) = caught.value.problems
    shown = override if len(override) <= 200 else f"{override[:197]}..."
    assert str(problem) == f"override '{shown}': {rest}"


@pytest.mark.parametrize(
    ("override", "rest"),
    [
        (
            "width=choice(8,16)",
            "there is no such path in the config (got width); did you mean task.args.width?",
        ),
        (
            "depth=choice(8,16)",
            "there is no such path in the config (got depth); did you mean task.args.depth?",
        ),
        ("training.precision=interval(0,1)", "this key is no number (got uniform); use choice"),
        (
            "tracking.uri=a,b",
            "a trial changes task, training, resources or experiment.seed (got tracking.uri)",
        ),
    ],
)
def test_a_sweep_over_no_path_of_a_trial_names_its_override(override: str, rest: str, file: Path) -> None:
    config = load(file, [override], sweeps="searched")
    with pytest.raises(PlanError) as caught:
        plan_tuning(config, "demo-1")
    assert [str(each) for each in placed(caught.value.problems, places([override]))] == [
        f"override '{override}': {rest}"
    ]


def test_a_link_to_itself_beside_the_config_is_no_group(file: Path) -> None:
    (file.parent / "loop").symlink_to("loop")
    with pytest.raises(ConfigError, match="there is no config group 'strateg'; did you mean 'strategy'"):
        load(file, ["strateg=ddp,zero1"], sweeps="searched")
