"""Where the run is recorded."""

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, PositiveFloat, model_validator

from raystack.config.section import Section


def _no_password(uri: str) -> str:
    if urlsplit(uri).password:
        raise ValueError("a password in the address would be written with the config; use username and password: secret:env:NAME")
    return uri


Secret = Annotated[str, Field(pattern=r"^secret:(env:[A-Za-z_]\w*|file:/.+)$")]
"""A reference, `secret:env:NAME` or `secret:file:/path`: read where it is used and never written anywhere."""


class Tracking(Section):
    """Where parameters, metrics and models are recorded."""

    kind: Literal["mlflow", "off"] = "mlflow"
    """`mlflow`, or `off` to record nothing outside the run's folder."""

    uri: Annotated[str, AfterValidator(_no_password)] | None = None
    """MLflow tracking URI, e.g. `http://mlflow:5000`. Left out: an SQLite store in `experiment.storage`."""

    username: str | None = None
    """User name for the tracking server's basic authentication."""

    password: Secret | None = None
    """Reference to its password."""

    token: Secret | None = None
    """Reference to a bearer token; excludes username and password."""

    system_metrics: bool = True
    """Record CPU, memory, disk, network and GPU use of the machine that started the run."""

    flush_s: PositiveFloat = 2.0
    """Seconds between two batches of metrics; they are sent beside the training, never in its way."""

    @model_validator(mode="after")
    def _one_way_to_log_in(self) -> Self:
        if self.token is not None and (self.username is not None or self.password is not None):
            raise ValueError("give a token, or a username and password, not both")
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password belong together")
        return self
