"""The target section: this machine, a Ray cluster or Kubernetes."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from raystack.config.kuberay import KubeRay
from raystack.config.names import VariableName
from raystack.config.secret import Secret, no_password
from raystack.config.section import Section, Text, kind_or


def _set_to_nothing(value: Any) -> Any:
    """Return None for an empty string."""
    # Ray, too, treats `RAY_ADDRESS=` as not set.
    return None if value == "" else value


class Local(Section):
    """This machine's Ray, or the cluster at an address."""

    kind: Literal["local"] = "local"
    """The target."""

    address: Annotated[Text | None, BeforeValidator(_set_to_nothing)] = None
    """Address of a running Ray cluster, e.g. `127.0.0.1:6379` or `auto`. The base config reads it from
    RAY_ADDRESS, which Ray sets inside a job. Not set: Ray is started for this run and stopped after it.
    """

    dashboard: bool = False
    """Start Ray's dashboard if Ray is started for this run. Its ten processes slow down the start and each
    step on a small machine; an existing cluster has its own.
    """

    dashboard_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Port of the Ray dashboard if Ray is started for this run. Not set: 8265, or the next free one."""


class Job(Section):
    """A job on an existing Ray cluster, submitted through its Jobs API."""

    kind: Literal["job"]
    """The target."""

    address: Annotated[Text, AfterValidator(no_password)] = "http://127.0.0.1:8265"
    """Address of the cluster's dashboard."""

    token: Secret | None = None
    """Reference to the cluster's token. Not set: Ray's own, from RAY_AUTH_TOKEN or ~/.ray/auth_token.
    """

    env: dict[VariableName, str] = Field(default={})
    """Environment variables of the job and its workers. The dashboard shows them, so no secrets."""

    packages: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    """Requirements that pip installs for the job, e.g. `raystack-ml`."""

    cpus: Annotated[float, Field(ge=0)] = 0.0
    """CPU cores that Ray reserves for the driver."""

    memory_gib: Annotated[float, Field(gt=0)] | None = None
    """Memory that Ray reserves for the driver, in GiB."""

    custom: dict[Text, Annotated[float, Field(ge=0)]] = Field(default={})
    """Custom Ray resources of the driver, which control its placement."""

    retries: Annotated[int, Field(ge=0)] = 0
    """Retries on the same cluster after the driver is lost. The run resumes from its last checkpoint."""


Target = Annotated[Local | Job | KubeRay, Field(discriminator="kind"), kind_or("local")]
