"""The tracking section: MLflow, its address and credentials."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, PositiveFloat, model_validator

from raystack.config.secret import Secret, no_password
from raystack.config.section import ConflictError, Section, Text


class Tracking(Section):
    """Recording of parameters, metrics and models."""

    kind: Literal["mlflow", "off"] = "mlflow"
    """`mlflow`, or `off` to record nothing outside the run's folder."""

    uri: Annotated[Text, AfterValidator(no_password)] | None = None
    """MLflow tracking URI, e.g. `http://mlflow:5000`; a password goes into `password`. Not set: an SQLite
    store in `experiment.storage`.
    """

    username: Text | None = None
    """User name for the tracking server's basic authentication."""

    password: Secret | None = None
    """Reference to the user's password."""

    token: Secret | None = None
    """Reference to a bearer token; excludes username and password."""

    system_metrics: bool = True
    """Record CPU, memory, disk, network and GPU use of the machine that started the run."""

    flush_s: PositiveFloat = 2.0
    """Seconds between two batches of metrics, which are sent in the background."""

    @model_validator(mode="after")
    def _one_way_to_log_in(self) -> Self:
        if self.token is not None and (self.username is not None or self.password is not None):
            raise ConflictError(
                "takes a token, or a username and password, not both", "token", "username", "password"
            )
        if (self.username is None) != (self.password is None):
            raise ConflictError("username and password belong together", "username", "password")
        return self
