"""A study for Katib: what it samples, what a trial is told, and what it cannot do as the config says."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raystack.config import dump, load
from raystack.config.target import Local
from raystack.errors import PlanError
from raystack.plan import plan_tuning
from raystack.plan.katib import KatibPlan, Parameter, as_text, plan_katib
from raystack.plan.tuning import TunePlan, trial_config

STUDY = """\
experiment: {name: demo, seed: 5, storage: /data}
task: {entry: "task:Demo", args: {width: 8, name: a, shape: [1, 2]}}
training: {steps: 10, batch: {global: 48}, evaluate: {every_steps: 5}, optimizer: {kind: adamw}}
registry: {model: demo}
tuning:
  metric: eval/loss
  mode: min
  trials: 20
  parallel: 4
"""

Study = Callable[..., TunePlan]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    def study(space: str, *overrides: str) -> TunePlan:
        (tmp_path / "config.yaml").write_text(STUDY + f"  space: {space}\n")
        return plan_tuning(load(tmp_path / "config.yaml", overrides), "demo-20260101-000000-aaaa")

    return study


def parameter(study: Study, path: str, domain: str, *overrides: str) -> Parameter:
    (found,) = plan_katib(study(f"{{{path}: {domain}}}", *overrides)).parameters
    return found


@pytest.mark.parametrize(
    ("path", "domain", "kind", "feasible"),
    [
        (
            "training.optimizer.lr",
            "{uniform: [0.001, 0.1]}",
            "double",
            {"min": "0.001", "max": "0.1", "distribution": "uniform"},
        ),
        (
            "training.optimizer.lr",
            "{loguniform: [1.0e-5, 0.1]}",
            "double",
            {"min": "1e-05", "max": "0.1", "distribution": "logUniform"},
        ),
        (
            "training.optimizer.lr",
            "{quniform: [0.1, 0.5, 0.1]}",
            "double",
            {"min": "0.1", "max": "0.5", "step": "0.1", "distribution": "uniform"},
        ),
        # Katib's mean is the middle, and its standard deviation a sixth of the range.
        (
            "training.optimizer.lr",
            "{normal: [3.0, 0.5]}",
            "double",
            {"min": "1.5", "max": "4.5", "distribution": "normal"},
        ),
        # The upper end is one that can be drawn, as in Katib.
        (
            "task.args.width",
            "{randint: [4, 9]}",
            "int",
            {"min": "4", "max": "8", "step": "1", "distribution": "uniform"},
        ),
        (
            "task.args.width",
            "{lograndint: [1, 65]}",
            "int",
            {"min": "1", "max": "64", "step": "1", "distribution": "logUniform"},
        ),
        (
            "task.args.width",
            "{quniform: [8, 32, 8]}",
            "int",
            {"min": "8", "max": "32", "step": "8", "distribution": "uniform"},
        ),
        ("task.args.width", "{choice: [8, 16]}", "discrete", {"list": ["8", "16"]}),
        ("task.args.name", "{choice: [a, b-1]}", "categorical", {"list": ["a", "b-1"]}),
        ("task.args.name", "{choice: [null, true]}", "categorical", {"list": ["null", "true"]}),
        ("task.args.shape", "{choice: [[1, 2], [3]]}", "categorical", {"list": ["[1,2]", "[3]"]}),
    ],
)
def test_each_domain_has_its_feasible_space(
    study: Study, path: str, domain: str, kind: str, feasible: dict[str, Any]
) -> None:
    found = parameter(study, path, domain, "tuning=random")
    assert (found.type, dict(found.feasible)) == (kind, feasible)
    assert found.overrides == (f"{path}=${{trialParameters.{path}}}",)


@pytest.mark.parametrize(
    ("space", "point"),
    [
        ("{task.args.shape: {choice: [[1, 2], [3.5, 1.0e-5]]}}", {"task.args.shape": [3.5, 1e-5]}),
        ("{task.args.name: {choice: [null, a/b.c, false]}}", {"task.args.name": "a/b.c"}),
        ("{training.strategy: {choice: [{kind: ddp}, {kind: zero, stage: 1}]}}", None),
        ("{strategy: {group: [ddp, zero1, fsdp]}}", {"strategy": "zero1"}),
    ],
)
def test_a_trial_reads_its_command_back_as_the_point(
    study: Study, tmp_path: Path, space: str, point: dict[str, Any] | None
) -> None:
    plan = study(space)
    katib = plan_katib(plan)
    dimension = plan.space.dimensions[0]
    point = point or {dimension.path: dimension.choices[1]}
    (each,) = katib.parameters
    index = dimension.choices.index(point[dimension.path])
    placeholder = f"${{trialParameters.{each.path}}}"
    words = [word.replace(placeholder, each.feasible["list"][index]) for word in each.overrides]
    # The placeholder is in quotes in a shell command, within JSON.
    assert not set("".join(words)) & set("'\"\\$`")
    assert shlex.split(shlex.join(words)) == words
    (tmp_path / "there.yaml").write_text(dump(katib.config))
    there = load(tmp_path / "there.yaml", words)
    wanted = trial_config(plan, point).model_copy(update={"registry": katib.config.registry})
    assert there.model_copy(update={"target": Local()}) == wanted.model_copy(update={"target": Local()})


def test_a_trial_registers_nothing_and_searches_nothing(study: Study) -> None:
    katib = plan_katib(study("{task.args.width: {choice: [1, 2]}}"))
    assert (katib.config.registry.model, katib.config.tuning) == (None, None)


def test_what_counts_of_a_trial_is_what_its_checkpoint_is_kept_by(study: Study) -> None:
    space = "{task.args.width: {choice: [1, 2]}}"
    assert plan_katib(study(space)).strategy == "latest"
    keep = "training.checkpoint.keep_best={metric: eval/loss, mode: min}"
    assert plan_katib(study(space, keep)).strategy == "min"


def counts(katib: KatibPlan) -> tuple[int, int, int]:
    return katib.trials, katib.parallel, katib.failures


def test_the_numbers_of_trials_are_ones_that_katib_accepts(study: Study) -> None:
    space = "{task.args.width: {choice: [1, 2, 3]}, task.args.name: {choice: [a, b]}}"
    assert counts(plan_katib(study(space))) == (20, 4, 3)
    assert counts(plan_katib(study(space, "tuning.trials=2"))) == (2, 2, 2)
    assert counts(plan_katib(study(space, "tuning.parallel=null"))) == (20, 3, 3)
    assert counts(plan_katib(study(space, "tuning=grid"))) == (6, 4, 3), "no more than there are"


@pytest.mark.parametrize(
    ("overrides", "name", "settings"),
    [
        (("tuning=random",), "random", {}),
        (("tuning=grid",), "grid", {}),
        (("tuning=tpe",), "multivariate-tpe", {"n_startup_trials": "10", "n_ei_candidates": "24"}),
        (("tuning=tpe", "tuning.search.multivariate=false"), "tpe", {"n_EI_candidates": "24"}),
        (
            ("tuning=gp", "tuning.search.startup=4"),
            "bayesianoptimization",
            {"base_estimator": "GP", "n_initial_points": "4", "acq_func": "EI"},
        ),
    ],
)
def test_each_search_is_an_algorithm_with_the_same_settings_and_seed(
    study: Study, overrides: tuple[str, ...], name: str, settings: dict[str, str]
) -> None:
    katib = plan_katib(study("{task.args.width: {choice: [1, 2]}}", *overrides))
    assert (katib.search.name, katib.search.settings) == (name, {**settings, "random_state": "5"})
    assert katib.stopping is None


def test_cmaes_and_median_stopping_keep_their_settings(study: Study) -> None:
    space = "{task.args.width: {randint: [1, 9]}, training.optimizer.lr: {uniform: [0.1, 1.0]}}"
    assert plan_katib(study(space, "tuning=cmaes", "tuning.search.sigma=0.5")).search.settings == {
        "sigma": "0.5",
        "random_state": "5",
    }
    median = plan_katib(study(space, "tuning=median", "tuning.scheduler.grace=2")).stopping
    assert median is not None
    assert (median.name, median.settings) == ("medianstop", {"min_trials_required": "3", "start_step": "2"})


WIDTH = "{task.args.width: {choice: [1, 2]}}"
KIND = "{training.optimizer.kind: {choice: [adamw, sgd]}, training.optimizer.lr: %s}"


@pytest.mark.parametrize(
    ("space", "overrides", "where"),
    [
        (KIND % "{uniform: [0.1, 1.0], when: {training.optimizer.kind: sgd}}", (), "lr.when"),
        ("{task.args.name: {choice: [a, two words]}}", (), "tuning.space.task.args.name"),
        ("{task.args.name: {choice: [a, it's]}}", (), "tuning.space.task.args.name"),
        ("{task.args.name: {choice: [a, '1']}}", (), "tuning.space.task.args.name"),
        ("{task.args.name: {choice: [a, '']}}", (), "tuning.space.task.args.name"),
        ("{task.args.name: {choice: ['$HOME', a]}}", (), "tuning.space.task.args.name"),
        ("{resources.cpus_per_worker: {choice: [1, 2]}}", (), "tuning.space.resources.cpus_per_worker"),
        ("{resources: {group: [cpu1, cpu2]}}", (), "tuning.space.resources"),
        ("{training.optimizer.lr: {normal: [1.0, 0.1]}}", ("tuning=tpe",), "tuning.space.training.opt"),
        ("{training.optimizer.lr: {uniform: [0.1, 1.0]}}", ("tuning=gp",), "tuning.space.training.opt"),
        ("{task.args.width: {quniform: [8, 32, 8]}}", ("tuning=gp",), "tuning.space.task.args.width"),
        (
            "{task.args.width: {lograndint: [1, 9]}, training.optimizer.lr: {uniform: [0.1, 1.0]}}",
            ("tuning=cmaes",),
            "tuning.space.task.args.width",
        ),
        (WIDTH, ("tuning=asha",), "tuning.scheduler"),
        (WIDTH, ("tuning.metric=[eval/loss,eval/accuracy]", "tuning.mode=[min,max]"), "tuning.metric"),
        (WIDTH, ("tuning.constraints={eval/time: {max: 3.0}}",), "tuning.constraints"),
        (WIDTH, ("tuning.points=[{task.args.width: 1}]",), "tuning.points"),
        (WIDTH, ("tuning=tpe", "tuning.warm_start={study: before}"), "tuning.warm_start"),
        (WIDTH, ("tuning.limits.worker_hours=1.0",), "tuning.limits.worker_hours"),
        (WIDTH, ("tuning.limits.plateau={trials: 3}",), "tuning.limits.plateau"),
        (WIDTH, ("tuning=tpe", "tuning.search.storage=sqlite:////data/o.db"), "tuning.search.storage"),
        ("{task.args.width: {randint: [1, 9]}}", ("tuning=cmaes",), "tuning.space"),
    ],
)
def test_what_katib_cannot_do_is_refused_by_name(
    study: Study, space: str, overrides: tuple[str, ...], where: str
) -> None:
    plan = study(space, *overrides)
    with pytest.raises(PlanError) as caught:
        plan_katib(plan)
    (problem,) = caught.value.problems
    assert where in problem.where


def test_all_that_katib_cannot_do_is_told_at_once(study: Study) -> None:
    space = "{task.args.name: {choice: [a b]}, task.args.width: {choice: [1, 2], when: {task.args.name: a}}}"
    with pytest.raises(PlanError) as caught:
        plan_katib(study(space, "tuning=asha"))
    assert [problem.where for problem in caught.value.problems] == [
        "tuning.scheduler",
        "tuning.space.task.args.name",
        "tuning.space.task.args.width.when",
    ]


def test_text_for_an_override_has_no_blanks() -> None:
    assert (
        as_text({"kind": "zero", "stage": 1, "of": [True, None, 0.5]})
        == "{kind:zero,stage:1,of:[true,null,0.5]}"
    )
