"""Pods for a study: one for each worker of a trial, as many as its trials at once need."""

from collections.abc import Iterator

from raystack.config import RunConfig
from raystack.config.kuberay import KubeRay
from raystack.config.point import with_values
from raystack.errors import ConfigError, PlanError, Problem
from raystack.plan.kuberay.asked import Asked
from raystack.plan.kuberay.pod_rules import core_problems, gpu_problems, least_problems
from raystack.plan.kuberay.shape import Form
from raystack.plan.scale import Workers, plan_workers
from raystack.plan.space import Dimension
from raystack.plan.tuning import TunePlan


def asked_by_study(plan: TunePlan, target: KubeRay) -> Asked:
    """Return the pods of one trial at least, and of `tuning.parallel` trials at most.

    With STRICT_PACK one pod holds all workers of a trial. Where the space changes the resources, each pod
    holds what the largest trial needs.
    """
    resources = plan.config.resources
    trials = [plan.base.workers, *_sampled(plan)]
    count = max(each.count for each in trials)
    pods, each = (1, count) if resources.placement == "STRICT_PACK" else (count, 1)
    limit = target.autoscaling.max_workers
    # A study without a number of trials at once starts as many as the cluster holds when it begins.
    most = pods * min(plan.trials, plan.tuning.parallel or 1)
    largest = {name: max(one.resources.get(name, 0.0) for one in trials) for name in _names(trials)}
    # Ray counts in steps of 0.0001.
    needs = {name: round(amount * each, 4) for name, amount in largest.items()}
    cpus, gpus = needs.pop("CPU"), needs.pop("GPU", 0.0)
    return Asked(
        least=pods,
        most=max(pods, min(most, limit)) if limit is not None else most,
        pods=pods,
        cpus=cpus,
        gpus=int(gpus),
        custom=needs,
        accelerator=resources.accelerator_type,
        together=None if resources.placement == "STRICT_PACK" or most == 1 else resources.placement,
    )


def study_problems(config: RunConfig, target: KubeRay, form: Form, wanted: Asked) -> Iterator[Problem]:
    """Yield what cannot be placed, and what is requested without effect."""
    yield from core_problems(target, wanted)
    yield from least_problems(config, target, form, wanted)
    yield from gpu_problems(target, form, wanted)
    scaling = target.autoscaling
    if scaling.enabled and wanted.least == wanted.most:
        rule = "the study runs one trial at a time, so that there is nothing to scale"
        remedy = "raise tuning.parallel, or drop it"
        yield Problem("target.autoscaling.enabled", rule=rule, got="true", remedy=remedy)
    if scaling.max_workers is not None and scaling.max_workers < wanted.pods:
        rule, got = f"a trial needs {wanted.pods} worker pods", str(scaling.max_workers)
        remedy = f"set it to at least {wanted.pods}"
        yield Problem("target.autoscaling.max_workers", rule=rule, got=got, remedy=remedy)


def _names(trials: list[Workers]) -> list[str]:
    return sorted({name for each in trials for name in each.resources})


def _sampled(plan: TunePlan) -> Iterator[Workers]:
    """Yield the workers of each value that the space gives the resources; impossible ones are left out."""
    for dimension in plan.space:
        for values in _values(dimension):
            if any(path.partition(".")[0] == "resources" for path in values):
                try:
                    yield plan_workers(with_values(plan.config, values).resources)
                except (ConfigError, PlanError):
                    continue


def _values(dimension: Dimension) -> Iterator[dict[str, object]]:
    """Yield what the dimension's choices set, or the ends of its range."""
    if dimension.sections is not None:
        yield from map(dict, dimension.sections.values())
        return
    ends = (dimension.low, dimension.high)
    for value in dimension.choices or (map(int, ends) if dimension.integer else ends):
        yield {dimension.path: value}
