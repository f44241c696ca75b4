"""The automation section: when a model is trained again, and what has to hold before it is served."""

from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator

from raystack.config.experiment import Url
from raystack.config.secret import Secret
from raystack.config.section import ConflictError, NonNegativeFloat, Pattern, Section, Text
from raystack.config.telemetry import Sink, http_url


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise ValueError("should be a time zone such as UTC or Europe/Vienna") from None
    return name


_HOURS = r"([01]\d|2[0-3]):[0-5]\d"
Hours = Annotated[str, Pattern(rf"^{_HOURS}-{_HOURS}$", "should be two times of a day, e.g. 22:00-06:00")]
"""A part of the day, which may go over midnight."""


class OnDrift(Section):
    """Drift of the data that is served, as it was measured by the replicas."""

    events: Url | None = None
    """Folder, file, pattern or URL of the events of drift, in JSON lines: where `serving.drift.to` or
    `serving.payloads.to` has its files.
    """

    metrics: Annotated[Text, AfterValidator(http_url)] | None = None
    """URL of Prometheus metrics with `raystack_drift`, such as Ray's own at a node. In place of `events`."""

    threshold: PositiveFloat = 0.25
    """Stability index of `metrics` from which data has drifted. Events have `serving.drift.threshold`."""

    for_s: NonNegativeFloat = 0.0
    """Seconds that it has to last. An index is looked at every `automation.poll_s`."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.events is None) == (self.metrics is None):
            raise ConflictError("needs events or metrics, and not both", "events", "metrics")
        return self


class OnData(Section):
    """New data."""

    url: Url
    """File, folder, pattern or URL: a file that is new or has changed there is new data."""

    settle_s: NonNegativeFloat = 60.0
    """Seconds without a further change after which the data counts as arrived."""


class Triggers(Section):
    """What begins a training. Several may be set."""

    drift: OnDrift | None = None
    """Drift of the served data."""

    schedule: Text | None = None
    """Cron schedule in `automation.timezone`: five fields, or `@daily` and so on. Needs the extra
    `automation`.
    """

    data: OnData | None = None
    """New data."""

    @model_validator(mode="after")
    def _one_at_least(self) -> Self:
        if self.drift is None and self.schedule is None and self.data is None:
            rule = "needs a trigger, without which nothing would ever begin"
            raise ConflictError(rule, "drift", remedy="set drift, schedule or data")
        return self


class Action(Section):
    """What is done when a trigger comes."""

    verb: Literal["train", "tune"] = "train"
    """`train`, or `tune` for a search whose best model is registered."""

    overrides: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    """Overrides of this config for it, e.g. `training.epochs=3`."""

    longest_s: PositiveFloat = 86400.0
    """Seconds after which it is stopped."""

    attempts: PositiveInt = 3
    """How often it is started if its process is lost. It goes on from its last checkpoint."""


class Budget(Section):
    """Limits for any 24 hours."""

    runs_per_day: PositiveInt | None = None
    """Number of runs. Not set: no limit."""

    hours_per_day: PositiveFloat | None = None
    """Hours of training, the running one included, which is stopped where they end. Not set: no limit."""


class Dapr(Section):
    """A Dapr sidecar that publishes events."""

    url: Annotated[Text, AfterValidator(http_url)] = "http://127.0.0.1:3500"
    """Address of the sidecar."""

    pubsub: Annotated[str, Pattern(r"^[\w.-]+$", "should be a name of Dapr's component")]
    """Name of the pub/sub component."""

    topic: Annotated[str, Pattern(r"^[\w./-]+$", "should be the name of a topic")]
    """Topic."""


class Events(Section):
    """Where each step of the automation is sent, as a CloudEvent."""

    to: Sink | None = None
    """Folder for a file of JSON lines, or `http://` or `https://` URL, such as that of a Knative broker."""

    token: Secret | None = None
    """Reference to a bearer token for the URL."""

    dapr: Dapr | None = None
    """Dapr's pub/sub, beside `to`."""


class Automation(Section):
    """Training again without a hand: trigger, training, gates, and then a rollout or a moved alias.

    `raystack automate` runs it. Its record is in `automation/<name>` in `experiment.storage`.
    """

    triggers: Triggers
    """What begins a training."""

    action: Action = Action()
    """What is done then."""

    then: Literal["rollout", "promote", "nothing"] = "rollout"
    """What becomes of a version that has passed `registry.gates`: a rollout by the section `rollout`, at
    whose end the alias moves; the alias moves at once; or the version is only registered.
    """

    cooldown_s: NonNegativeFloat = 3600.0
    """Seconds from the end of one round to the beginning of the next."""

    budget: Budget = Budget()
    """Limits."""

    quiet: Annotated[tuple[Hours, ...], Field(strict=False)] = ()
    """Parts of the day in which nothing begins, e.g. `[22:00-06:00]`. What has begun goes on."""

    timezone: Annotated[str, AfterValidator(_zone)] = "UTC"
    """Time zone of `quiet` and the schedule."""

    stop: Url | None = None
    """File, local or a URL, that stops everything at once while it exists: the training ends, a rollout is
    aborted, and nothing begins. Not set: the file `stop` in the record's folder.
    """

    poll_s: PositiveFloat = 10.0
    """Seconds between two looks."""

    events: Events = Events()
    """Where each step is sent, beside the record."""
