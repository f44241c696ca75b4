"""Who admits the pods on Kubernetes, and how many there are: queues and Ray's autoscaler."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from raystack.config.kubernetes import Name, Seconds
from raystack.config.section import ConflictError, Section, Text


class Autoscaling(Section):
    """Ray's autoscaler in the cluster, which adds worker pods on demand.

    The manifest always names autoscaler v2 explicitly.
    """

    enabled: bool | None = None
    """Enable the autoscaler. Needs elastic workers, `resources.workers: [min, max]`, a study with several
    trials at once, or a service. Not set: for such a study, unless a queue admits the pods.
    """

    min_workers: Annotated[int, Field(ge=0)] | None = None
    """Fewest pods of the run's own group. Not set: as many as the run starts with. Fewer lets further groups
    hold them where the group's machines cannot be had; the run then waits, up to `resources.wait_s`.
    """

    max_workers: PositiveInt | None = None
    """Maximum number of worker pods. Not set: as many as the run, the replicas or `tuning.parallel` trials
    can use.
    """

    start_timeout_s: Seconds | None = None
    """Seconds after which a pod that has not started is given up, and a group with a lower priority and the
    same resources is asked. They include a new node and pulling the image. Not set: Ray's 3600.
    """

    idle_timeout_s: Seconds = 60
    """Seconds after which an idle worker pod is removed."""

    upscaling: Literal["Default", "Aggressive", "Conservative"] = "Default"
    """Speed at which pods are added."""


class Queue(Section):
    """The queue and scheduler that admit the pods."""

    scheduler: Literal["none", "kueue", "volcano", "yunikorn", "kai", "scheduler-plugins"] = "none"
    """Batch scheduler; `none` is Kubernetes' own. The others have to be installed, and all but kueue also
    have to be set in the operator's values (`batchScheduler.name`).
    """

    name: Name | None = None
    """Queue: a LocalQueue of Kueue, or a queue of Volcano, YuniKorn (`root.team`) or KAI."""

    priority: Name | None = None
    """Priority class: Kueue's WorkloadPriorityClass, or the PriorityClass of the pods."""

    gang: bool = True
    """Start all pods at once or none. kueue, volcano and kai always do."""

    topology: Text | None = None
    """Key of a node label within which all workers are placed, e.g. `cloud.provider.com/topology-rack`:
    Kueue's required topology, or Volcano's highest tier as a number.
    """

    multikueue: bool = False
    """Let Kueue dispatch the job to another cluster (MultiKueue)."""

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.scheduler in ("kueue", "kai") and self.name is None:
            raise ConflictError(
                f"{self.scheduler} needs the name of a queue",
                "scheduler",
                "name",
                remedy="set target.queue.name",
            )
        if self.multikueue and self.scheduler != "kueue":
            raise ConflictError(
                "only kueue has other clusters",
                "multikueue",
                "scheduler",
                remedy="set target.queue.scheduler=kueue",
            )
        return self
