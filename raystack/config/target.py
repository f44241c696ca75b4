"""Where the plan runs."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from raystack.config.section import Section


def _set_to_nothing(value: Any) -> Any:
    """Ray takes `RAY_ADDRESS=` for not set; so does the config."""
    return None if value == "" else value


class Local(Section):
    """This machine's Ray, or the cluster at an address."""

    kind: Literal["local"] = "local"
    """The target."""

    address: Annotated[str | None, BeforeValidator(_set_to_nothing)] = None
    """Address of a running Ray cluster, e.g. `127.0.0.1:6379` or `auto`. The base config takes it from RAY_ADDRESS, which
    Ray sets inside a job. Left out: Ray is started for this run and stopped after it."""

    dashboard: bool = False
    """Have Ray's dashboard when Ray is started for this run. It is ten processes, which a small machine notices at the start
    and in every step; a cluster that is joined has its own."""

    dashboard_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Port of the Ray dashboard when Ray is started for this run. Left out: 8265, or the next free one."""
