"""Rules of the linter, a file for each subject. A rule's number shows who else checks it.

RS1xx   the API server: CRD schema, versions, feature gates; of pods from RS140 on
RS2xx   names
RS3xx   the operator, of a RayCluster's spec wherever it lies
RS4xx   the operator, of a RayJob's spec
RS5xx   the operator, of a RayService
RS6xx   the operator, of a RayCronJob
RS7xx   nobody
RS8xx   batch schedulers and Kueue
RS9xx   Ray Serve, of a RayService's applications
"""

from types import ModuleType

from raystack.kuberay.lint.rule import Rule
from raystack.kuberay.lint.rules import (
    applications,
    autoscaling,
    batch,
    choices,
    containers,
    cron,
    deletion,
    devices,
    fitting,
    groups,
    history,
    job,
    known,
    kueue,
    limits,
    names,
    network,
    pods,
    ray_start,
    recovery,
    runtime_env,
    schema,
    security,
    selectors,
    service,
    settings,
    sizes,
    slices,
    sources,
    submission,
    values,
    volumes,
)

MODULES: tuple[ModuleType, ...] = (
    applications,
    autoscaling,
    batch,
    choices,
    containers,
    cron,
    deletion,
    devices,
    fitting,
    groups,
    history,
    job,
    known,
    kueue,
    limits,
    names,
    network,
    pods,
    ray_start,
    recovery,
    runtime_env,
    schema,
    security,
    selectors,
    service,
    settings,
    sizes,
    slices,
    sources,
    submission,
    values,
    volumes,
)


def _collect() -> dict[str, Rule]:
    found = [each for module in MODULES for each in vars(module).values() if isinstance(each, Rule)]
    rules = {each.id: each for each in sorted(found, key=lambda each: each.id)}
    assert len(rules) == len(found), "two rules have one id"
    return rules


RULES: dict[str, Rule] = _collect()
"""All rules by id, in order."""
