"""What runs elsewhere. In: a reference such as `rayjob/digits-7f3a` and where to look, or a config to submit.
Out: a Remote, a Status.

The one place that knows both the Ray Jobs API and Kubernetes. What asks Kubernetes is imported only where it
is meant: its client takes as long to import as all else.
"""

import logging
import os
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, get_args

from raystack.config.kuberay import KubeRay
from raystack.config.target import Job, Local, Target
from raystack.errors import (
    ConfigError,
    PlanError,
    Problem,
    nearest,
)
from raystack.kuberay.actions.prepare import Prepared, prepare
from raystack.launch import job
from raystack.plan import KubePlan, ServePlan, TrainPlan
from raystack.plan.target import form_of, run_of
from raystack.status import JobHandle, ObjectKind, Status

if TYPE_CHECKING:
    from raystack.kuberay.api.client import Client

logger = logging.getLogger(__name__)

KINDS: tuple[ObjectKind, ...] = get_args(ObjectKind)
DASHBOARD = "http://127.0.0.1:8265"


@dataclass(frozen=True)
class ClusterRef:
    """Where to look: the dashboard of a Ray cluster, or a namespace of Kubernetes."""

    address: str | None = None
    """Left out: RAY_API_SERVER_ADDRESS, which Ray's own commands read, or this machine's."""
    namespace: str | None = None
    context: str | None = None
    kubeconfig: str | None = None
    token: str | None = None
    """Reference to the Ray cluster's token. Left out: what Ray itself finds."""

    @classmethod
    def of(cls, target: Target) -> "ClusterRef":
        """Where a config's target is; of one that is not elsewhere: where commands look by themselves."""
        if isinstance(target, Job):
            return cls(address=target.address, token=target.token)
        if isinstance(target, KubeRay):
            return cls(namespace=target.namespace, context=target.context, kubeconfig=target.kubeconfig)
        return cls()

    def over(self, config: "ClusterRef") -> "ClusterRef":
        """This one; where it says nothing, `config`."""
        chosen = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(config, **{name: value for name, value in chosen.items() if value is not None})

    @property
    def dashboard(self) -> str:
        return self.address or os.environ.get("RAY_API_SERVER_ADDRESS") or DASHBOARD

    def client(self) -> "Client":
        """The door to Kubernetes."""
        from raystack.kuberay.api.client import Client

        return Client(kubeconfig=self.kubeconfig, context=self.context, namespace=self.namespace or "default")


HERE = ClusterRef()
"""Where Ray's own commands and kubectl would look."""


def find(reference: str, where: ClusterRef = HERE) -> JobHandle:
    """The thing that `kind/name` names. Nothing is asked of it yet. ConfigError where the reference
    is none.
    """
    kind, name = split(reference)
    if kind == "job":
        return job.JobRemote(where.dashboard, where.token, name)
    from raystack.launch import kuberay

    return kuberay.KubeRemote(where.client(), kind, name)


def split(reference: str) -> tuple[ObjectKind, str]:
    """`rayjob/digits` -> its kind and its name."""
    written, slash, name = reference.partition("/")
    kind = next((kind for kind in KINDS if kind == written.lower()), None)
    if kind is not None and name:
        return kind, name
    if not slash:
        remedy = f"write rayjob/{reference}, or job/{reference} on a Ray cluster"
    else:
        close = nearest(written.lower(), KINDS)
        remedy = f"did you mean {close}/{name or 'NAME'}?" if close else f"the kinds are {', '.join(KINDS)}"
    raise ConfigError(Problem("name", rule="should be KIND/NAME", got=reference, remedy=remedy))


def statuses(where: ClusterRef = HERE) -> list[Status]:
    """What there is: the jobs of a Ray cluster where one is named, by hand or by RAY_API_SERVER_ADDRESS, else
    KubeRay's objects.
    """
    kubernetes = where.namespace or where.context or where.kubeconfig
    if where.address is not None or ("RAY_API_SERVER_ADDRESS" in os.environ and not kubernetes):
        return job.jobs(where.dashboard, where.token)
    from raystack.launch import kuberay

    return kuberay.statuses(where.client())


def planned(plan: TrainPlan | ServePlan, options: tuple[str, ...] = ()) -> KubePlan | None:
    """What Kubernetes would be asked for; None for another target. Raises what `submit` would raise before it
    asks anybody.
    """
    prepared = _prepared(plan, options)
    return prepared.plan if prepared is not None else None


def submit(plan: TrainPlan | ServePlan, options: tuple[str, ...] = ()) -> Status:
    """Send it to its target; returns when it was accepted. `options` are added to the driver's command.

    Raises PlanError where it cannot be met, LaunchError where it is refused.
    """
    target = plan.config.target
    assert not isinstance(target, Local), "what runs on this machine is launched by local.py"
    prepared = _prepared(plan, options)
    if prepared is None:
        assert isinstance(plan, TrainPlan), "a served model is no job"
        return job.submit(plan, options)
    from raystack.launch import kuberay

    return kuberay.send(ClusterRef.of(target).client(), prepared)


def _prepared(plan: TrainPlan | ServePlan, options: tuple[str, ...]) -> Prepared | None:
    """What may be sent to Kubernetes, and what should be known of it is logged; None for another target."""
    target = plan.config.target
    if isinstance(target, Job) and isinstance(plan, ServePlan):
        rule, remedy = (
            "a job ends, and a served model stays",
            "use target=kuberay, or target=cluster with --detach on the cluster",
        )
        raise PlanError(Problem("target", rule=rule, got="job", remedy=remedy))
    if not isinstance(target, KubeRay):
        return None
    run = run_of(plan)
    # A schedule's runs plan by themselves, with the code that they find.
    decided = plan if isinstance(plan, TrainPlan) and run is not None else None
    prepared = prepare(plan.config, run, form_of(plan), options, decided)
    for finding in prepared.warnings:
        logger.warning("%s", finding)
    return prepared
