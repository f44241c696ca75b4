"""How objects on Kubernetes begin, change and end: submission, clean-up, upgrades and schedules."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from raystack.config.kubernetes import Name, Seconds
from raystack.config.section import ConflictError, NonNegativeInt, Section, Text

Percent = Annotated[int, Field(ge=0, le=100)]


class Submission(Section):
    """Submission of a RayJob's entrypoint, retries and deadlines."""

    mode: Literal["K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"] = "K8sJobMode"
    """Submitter: a Kubernetes Job, the operator (HTTP), a sidecar of the head, or the user."""

    retries: NonNegativeInt = 0
    """Retries after a failure, each on a new cluster. A run resumes from its last checkpoint."""

    deadline_s: Seconds | None = None
    """Maximum seconds of the job, from its start."""

    start_deadline_s: Seconds | None = 1800
    """Maximum seconds until the job runs, which include pulling images and waiting for nodes but not the time
    in a queue. null: no limit.
    """


class Rule(Section):
    """A deletion rule, applied some time after a job has ended."""

    policy: Literal["DeleteWorkers", "DeleteCluster", "DeleteSelf", "DeleteNone"]
    """Object to delete."""

    after: Literal["SUCCEEDED", "FAILED"]
    """Final status of the job to which the rule applies."""

    ttl_s: NonNegativeInt = 0
    """Seconds between the end of the job and the deletion."""


class Lifetime(Section):
    """Clean-up of a job that has ended."""

    ttl_s: NonNegativeInt = 600
    """Seconds after which the cluster is deleted. Excludes `rules`."""

    rules: Annotated[tuple[Rule, ...], Field(strict=False)] = ()
    """Deletion rules by final status. Excludes `ttl_s`, suspending and kueue."""


class Upgrade(Section):
    """Upgrade of a RayService whose config has changed."""

    kind: Literal["NewCluster", "NewClusterWithIncrementalUpgrade", "None"] = "NewCluster"
    """`NewCluster`: start a second cluster, then switch all traffic. `NewClusterWithIncrementalUpgrade`: move
    the traffic in steps through the Gateway API. `None`: change nothing while the service runs.
    """

    gateway_class: Name | None = None
    """GatewayClass for the incremental upgrade."""

    step_percent: Percent = 10
    """Percentage of the traffic that moves in one step."""

    interval_s: Seconds = 10
    """Seconds between two steps."""

    surge_percent: Percent = 100
    """Additional capacity during the upgrade, in percent."""

    @model_validator(mode="after")
    def _gateway(self) -> Self:
        if (self.kind == "NewClusterWithIncrementalUpgrade") != (self.gateway_class is not None):
            raise ConflictError(
                "the incremental kind and a gateway class belong together", "kind", "gateway_class"
            )
        return self


class Cron(Section):
    """Periodic training (RayCronJob)."""

    schedule: Text | None = None
    """Cron schedule: five fields, or `@hourly`, `@daily` and so on. Not set: not periodic."""

    time_zone: Text | None = None
    """IANA name of the time zone, e.g. `Europe/Berlin`. Not set: the operator's, usually UTC."""

    suspend: bool = False
    """Keep the schedule but start no jobs."""
