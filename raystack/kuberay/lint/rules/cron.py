"""Rules on a RayCronJob: its schedule, and what its jobs do not inherit."""

import zoneinfo
from collections.abc import Iterator
from functools import cache

from raystack.kuberay.lint.operator import Operator
from raystack.kuberay.lint.rule import INVALID, Breach, rule
from raystack.kuberay.lint.subject import ObjectSubject
from raystack.plan.kuberay.schedule import schedule_mistake


@cache  # it reads the whole folder of time zones
def _zones() -> set[str]:
    return zoneinfo.available_timezones()


@rule(
    "RS602",
    on=ObjectSubject,
    kinds=("RayCronJob",),
    says="the schedule names no time zone",
    why=INVALID,
    remedy="write it into timeZone",
)
def zone_in_schedule(resource: ObjectSubject, operator: Operator) -> Iterator[Breach]:
    if "TZ" in resource.spec["schedule"].text:
        yield Breach(resource.spec["schedule"])


@rule(
    "RS603",
    on=ObjectSubject,
    kinds=("RayCronJob",),
    says="a schedule has five fields, or is a word such as @daily",
    why=INVALID,
    remedy='write it as "minute hour day month weekday", e.g. "0 3 * * *"',
)
def schedule(resource: ObjectSubject, operator: Operator) -> Iterator[Breach]:
    given = resource.spec["schedule"]
    if given.present and "TZ" not in given.text and (wrong := schedule_mistake(given.text)) is not None:
        yield Breach(given, says=f"the schedule cannot be read: {wrong}")


@rule(
    "RS604",
    on=ObjectSubject,
    kinds=("RayCronJob",),
    says="timeZone is a name of the IANA database",
    why=INVALID,
    remedy="write e.g. Europe/Berlin, or drop it",
    since="1.7.0",
)
def zone(resource: ObjectSubject, operator: Operator) -> Iterator[Breach]:
    given, known = resource.spec["timeZone"], _zones()
    if given.present and (not given.text or (known and given.text not in known)):
        yield Breach(given)
