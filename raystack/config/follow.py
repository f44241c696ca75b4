"""The part of a rollout that begins it: an alias that moves in MLflow."""

from typing import Annotated

from pydantic import AfterValidator, Field, PositiveFloat

from raystack.config.names import Alias, Host
from raystack.config.secret import Secret
from raystack.config.section import Pattern, Section, Text
from raystack.config.telemetry import http_url


class Webhook(Section):
    """An address at which MLflow says at once that an alias has moved. It only wakes: what the alias points
    to is read from MLflow itself.
    """

    host: Host = "127.0.0.1"
    """Address to listen on; `0.0.0.0` for every interface."""

    port: Annotated[int, Field(ge=1, le=65535)] = 8090
    """HTTP port."""

    path: Annotated[str, Pattern(r"^/[\w./-]*$", "should be a path that begins with /")] = "/"
    """Path of the webhook."""

    secret: Secret
    """Reference to the secret that MLflow signs with. What is not signed with it is refused."""

    tolerance_s: PositiveFloat = 300.0
    """Seconds that the time of a delivery may lie from this machine's clock. An older one is refused, as is
    one that came before.
    """

    register_as: Annotated[Text, AfterValidator(http_url)] | None = None
    """URL of this webhook as MLflow's server reaches it: it is registered there at the start. Not set:
    nothing is registered.
    """


class Follow(Section):
    """An alias that `raystack follow` follows: each version that it comes to point to is rolled out."""

    alias: Alias | None = None
    """Alias of the model. Not set: that of `rollout.model`, or `registry.alias`."""

    poll_s: PositiveFloat = 2.0
    """Seconds between two looks at the alias."""

    webhook: Webhook | None = None
    """MLflow's webhook, beside polling. Not set: polling alone."""
