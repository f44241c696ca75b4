"""Preparation of manifests: planned, rendered with the bundle, and linted, without a cluster."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from raystack.code.bundle import Bundle, bundle
from raystack.config import RunConfig
from raystack.config.kuberay import KubeRay
from raystack.errors import ConfigError, PlanError, Problem
from raystack.kuberay.api import kubeconfig
from raystack.kuberay.lint import Finding, Operator, documents, lint
from raystack.kuberay.manifest import Manifest, bundle_url, kustomize, render, render_rollout, to_yaml
from raystack.kuberay.manifest.overlay import taken
from raystack.kuberay.manifest.roles import roles
from raystack.plan import KubePlan, TrainPlan, TunePlan, plan_kuberay
from raystack.plan.kuberay import Form, plan_routes
from raystack.plan.kuberay.shape import Taken
from raystack.plan.target import forms


@dataclass(frozen=True)
class Prepared:
    """Manifests to send, with what to know before."""

    plan: KubePlan
    bundle: Bundle
    manifests: tuple[Manifest, ...]
    warnings: tuple[Finding, ...]

    @property
    def fetched(self) -> str | None:
        """URL from which the pods fetch the code; None if it is in a ConfigMap."""
        return bundle_url(self.plan, self.bundle)

    def put(self) -> None:
        """Upload the code to where the pods fetch it from, if it is too large for a ConfigMap."""
        if self.fetched is not None:
            self.bundle.put(self.plan.config.experiment.storage)


def prepare(
    config: RunConfig,
    run_id: str | None,
    form: Form,
    options: tuple[str, ...] = (),
    decided: TrainPlan | TunePlan | None = None,
    title: str | None = None,
) -> Prepared:
    """Plan, render and lint a config.

    `options` are added to the driver's command, and the values `decided` for its run or study travel with it.
    The name is made of `title` if there is one.
    Raises PlanError if the config cannot be planned, or if lint finds an error in the manifests.
    """
    plan = plan_kuberay(placed(config), run_id, form, local_ray(), title)
    plan = replace(plan, entrypoint=(*plan.entrypoint, *options))
    code = bundle(plan.config, decided)
    manifests = render(plan, code)
    warnings = (*_contradictions(plan), *_warnings(plan, manifests))
    return Prepared(with_taken(plan, code, manifests), code, manifests, warnings)


def with_taken(plan: KubePlan, code: Bundle, manifests: Sequence[Manifest]) -> KubePlan:
    """Return the plan with every value that its overlay has changed in the main object."""
    if not plan.target.overlay:
        return plan
    without = replace(plan, target=plan.target.model_copy(update={"overlay": {}}))
    known = tuple(each.path for each in plan.taken)
    more = (
        each for each in taken(render(without, code)[-1], manifests[-1]) if not _plain(each).endswith(known)
    )
    return replace(plan, taken=(*plan.taken, *more))


def _plain(taken: Taken) -> str:
    """Return a path as the overlay's own are written: `workerGroupSpecs.workers.replicas`."""
    return taken.path.replace("[", ".").replace("]", "")


def _contradictions(plan: KubePlan) -> Iterator[Finding]:
    """Yield what the overlay says otherwise than the keys of the config."""
    for each in plan.taken:
        reason = f"it is {each.value} instead of {each.planned}"
        remedy = "drop it, or set the key that decides it"
        yield Finding("overlay", "warning", "target.overlay", each.path, reason, remedy)


def prepare_rollout(config: RunConfig, step: int) -> Prepared:
    """Plan, render and lint a step of a rollout: one service with both versions, or with a mesh two.

    Raises ConfigError without a rollout, and otherwise as `prepare` does.
    """
    plan = plan_routes(placed(config), step, local_ray())
    served = plan.services[0]
    code = bundle(served.config)
    manifests = each_once([render_rollout(plan, code)])
    return Prepared(served, code, manifests, _warnings(served, manifests))


def prepare_roles(config: RunConfig) -> tuple[Manifest, ...]:
    """Render the Roles that users of raystack need in the config's namespace."""
    target = placed(config).target
    assert isinstance(target, KubeRay)
    return roles(target.namespace or kubeconfig.DEFAULT)


def placed(config: RunConfig) -> RunConfig:
    """Return the config with the namespace that kubectl would use, if it names none."""
    target = config.target
    if not isinstance(target, KubeRay) or target.namespace is not None:
        return config
    found = kubeconfig.namespace(target.kubeconfig, target.context)
    return config.model_copy(update={"target": target.model_copy(update={"namespace": found})})


def _warnings(plan: KubePlan, manifests: Sequence[Manifest]) -> tuple[Finding, ...]:
    """Return what lint warns of. Raises PlanError if it finds an error."""
    found = lint(documents(manifests), _operator(plan))
    if errors := [finding for finding in found if finding.level == "error"]:
        raise PlanError(
            [
                Problem(f"{each.where} {each.path}", rule=f"{each.reason} ({each.id})", remedy=each.remedy)
                for each in errors
            ]
        )
    return tuple(found)


def local_ray() -> str | None:
    """Return the version of the installed Ray without importing it."""
    try:
        return version("ray")
    except PackageNotFoundError:
        return None


def _operator(plan: KubePlan) -> Operator:
    """Return the operator that the plan needs; `raystack doctor` checks whether the cluster has it."""
    gates = frozenset(need.name for need in plan.needs if need.kind == "gate")
    scheduler = next((need.name for need in plan.needs if need.kind == "scheduler"), None)
    return Operator(version=plan.target.kuberay_version, gates=gates, scheduler=scheduler)


def chosen(form: str, config: RunConfig) -> tuple[Form | Literal["rollout", "role"], ...]:
    """Return the forms that `--as` names: one, `all`, or by default a schedule if there is one.

    Raises ConfigError if the config does not run on Kubernetes.
    """
    if not isinstance(config.target, KubeRay):
        rule, remedy = "only what runs on Kubernetes has manifests", "add target=kuberay"
        raise ConfigError(Problem("target", rule=rule, got=config.target.kind, remedy=remedy))
    possible = forms(config)
    match form:
        case "job" | "service" | "cluster" | "cron" | "tune" | "katib" | "rollout" | "role":
            return (form,)
        case "all":
            return possible
        case _:
            return ("cron",) if "cron" in possible else ("job",)


def each_once(groups: Iterable[Sequence[Manifest]]) -> tuple[Manifest, ...]:
    """Return all manifests, those that several forms share only once."""
    found = {(each["kind"], each["metadata"]["name"]): each for group in groups for each in group}
    return tuple(found.values())


def texts(rendered: Mapping[str, Sequence[Manifest]], *, kustomized: bool) -> dict[str, str]:
    """Return text by file name: a file for each form, or one per object with a kustomization.yaml."""
    if kustomized:
        return kustomize(each_once(rendered.values()))
    return {f"{form}.yaml": to_yaml(manifests) for form, manifests in rendered.items()}
