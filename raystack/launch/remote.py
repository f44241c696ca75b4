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
from raystack.kuberay.api import kubeconfig
from raystack.launch import job
from raystack.plan import KubePlan, PredictPlan, ServePlan, TrainPlan, TunePlan
from raystack.plan.target import form_of, run_of
from raystack.status import JobHandle, ObjectKind, Status

if TYPE_CHECKING:
    from raystack.kuberay.api.client import Client

logger = logging.getLogger(__name__)

Sent = TrainPlan | TunePlan | ServePlan | PredictPlan
"""What can be submitted; a prediction only as a job of a Ray cluster."""
KINDS: tuple[ObjectKind, ...] = get_args(ObjectKind)
DASHBOARD = "http://127.0.0.1:8265"


@dataclass(frozen=True)
class ClusterRef:
    """A place to look: the dashboard of a Ray cluster, or a namespace of Kubernetes."""

    address: str | None = None
    """Default: RAY_API_SERVER_ADDRESS, which Ray's own commands read, or this machine's."""
    namespace: str | None = None
    """Default: that of the kubeconfig's context."""
    context: str | None = None
    kubeconfig: str | None = None
    token: str | None = None
    """Reference to the Ray cluster's token. Default: the one that Ray itself finds."""
    storage: str | None = None
    """`experiment.storage`, where a run is looked for whose cluster is gone. Default: RAYSTACK_STORAGE, or
    `~/raystack`, as in the base config.
    """

    @classmethod
    def of(cls, target: Target, storage: str | None = None) -> "ClusterRef":
        """Return the place of a config's target; for a local one, where commands look by default."""
        if isinstance(target, Job):
            return cls(address=target.address, token=target.token, storage=storage)
        if isinstance(target, KubeRay):
            return cls(
                namespace=target.namespace,
                context=target.context,
                kubeconfig=target.kubeconfig,
                storage=storage,
            )
        return cls(storage=storage)

    def over(self, config: "ClusterRef") -> "ClusterRef":
        """Return this reference, with the values of `config` for those that are not set."""
        chosen = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(config, **{name: value for name, value in chosen.items() if value is not None})

    @property
    def dashboard(self) -> str:
        return self.address or os.environ.get("RAY_API_SERVER_ADDRESS") or DASHBOARD

    @property
    def runs(self) -> str:
        """Return the storage of the runs, as a path or URL without `~`."""
        named = self.storage or os.environ.get("RAYSTACK_STORAGE") or "~/raystack"
        return named if "://" in named else os.path.abspath(os.path.expanduser(named))

    def client(self) -> "Client":
        """Return the client of Kubernetes."""
        from raystack.kuberay.api.client import Client

        home = kubeconfig.namespace(self.kubeconfig, self.context)
        return Client(
            kubeconfig=self.kubeconfig, context=self.context, namespace=self.namespace or home, home=home
        )


HERE = ClusterRef()
"""The places where Ray's own commands and kubectl would look."""


def find(reference: str, where: ClusterRef = HERE) -> JobHandle:
    """Return a handle of what `kind/name` names, without a request. ConfigError if it is malformed."""
    kind, name = split(reference)
    if kind == "job":
        return job.JobRemote(where.dashboard, where.token, name, where.runs)
    from raystack.launch import kuberay

    return kuberay.KubeRemote(where.client(), kind, name, storage=where.runs)


def split(reference: str) -> tuple[ObjectKind, str]:
    """Split a reference: `rayjob/digits` -> its kind and its name."""
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
    """Return all statuses: the jobs of a Ray cluster if one is named, else KubeRay's objects.

    A cluster is named by option or by RAY_API_SERVER_ADDRESS.
    """
    kubernetes = where.namespace or where.context or where.kubeconfig
    if where.address is not None or ("RAY_API_SERVER_ADDRESS" in os.environ and not kubernetes):
        return job.jobs(where.dashboard, where.token)
    from raystack.launch import kuberay

    return kuberay.statuses(where.client())


def planned(plan: TrainPlan | TunePlan | ServePlan, options: tuple[str, ...] = ()) -> KubePlan | None:
    """Return the objects for Kubernetes; None for another target. Raises what `submit` would raise first."""
    prepared = _prepared(plan, options)
    return prepared.plan if prepared is not None else None


def submit(plan: Sent, options: tuple[str, ...] = (), *, force: bool = False) -> Status:
    """Submit a plan to its target; return when it was accepted.

    `options` are added to the driver's command. With `force` it is sent to Kubernetes also if something that
    it needs is missing there. Raises PlanError if the request cannot be met, LaunchError if it is rejected.
    """
    target = plan.config.target
    assert not isinstance(target, Local), "what runs on this machine is launched by local.py"
    prepared = None if isinstance(plan, PredictPlan) else _prepared(plan, options)
    if prepared is None:
        assert not isinstance(plan, ServePlan), "a served model is no job"
        return job.submit(plan, options)
    from raystack.launch import kuberay

    return kuberay.send(ClusterRef.of(target).client(), prepared, force=force)


def _prepared(plan: TrainPlan | TunePlan | ServePlan, options: tuple[str, ...]) -> Prepared | None:
    """Return the objects for Kubernetes, and log what should be known of them; None for another target."""
    target = plan.config.target
    if isinstance(target, Job) and isinstance(plan, ServePlan):
        rule, remedy = (
            "a job ends, and a served model stays",
            "use target=kuberay, or target=cluster with --detach on the cluster",
        )
        raise PlanError(Problem("target", rule=rule, got="job", remedy=remedy))
    if not isinstance(target, KubeRay):
        return None
    if isinstance(plan, TunePlan) and (schedule := target.cron.schedule) is not None:
        rule, remedy = "a schedule trains, and a study is started by hand", "drop it"
        raise PlanError(Problem("target.cron.schedule", rule=rule, got=schedule, remedy=remedy))
    run = run_of(plan)
    # A schedule's runs plan by themselves, with the code that they find.
    decided = plan if not isinstance(plan, ServePlan) and run is not None else None
    prepared = prepare(plan.config, run, form_of(plan), options, decided)
    for finding in prepared.warnings:
        logger.warning("%s", finding)
    return prepared
