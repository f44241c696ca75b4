"""What runs elsewhere, as a person reads it: statuses, logs, causes, and the commands to go on with."""

import json
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Protocol

from raystack.cli.listing import show_json, show_table
from raystack.cli.terminal import say, show_pairs, warn
from raystack.errors import LaunchError, RaystackError
from raystack.status import Diagnosis, JobHandle, LogLine, Status

STATES = {True: "ok", False: "no", None: "not known"}
SHORT = 60
"""Characters of a value in a comparison."""
LAST_LINES_S = 10.0
"""How long the log of something that has ended may take to arrive."""


def show_status(status: Status, *, as_json: bool) -> None:
    """One line, or the whole as JSON."""
    sys.stdout.write((json.dumps(asdict(status), indent=2) if as_json else status.line) + "\n")


def show_statuses(statuses: Sequence[Status], *, as_json: bool) -> None:
    """A table, or JSON."""
    if as_json:
        sys.stdout.write(json.dumps([asdict(status) for status in statuses], indent=2) + "\n")
    elif statuses:
        show_table([_words(status) for status in statuses])
    else:
        say("there is nothing")


def _words(status: Status) -> dict[str, str]:
    return {
        "name": f"{status.kind}/{status.name}",
        "phase": status.phase,
        "workers": f"{status.ready or 0}/{status.wanted}" if status.wanted is not None else "-",
        "attempt": str(status.attempt),
        "reason": status.reason or "-",
    }


def show_submitted(status: Status, place: str, *, as_json: bool) -> None:
    """Its name, and the commands to go on with; `place` is the options that lead there."""
    if as_json:
        show_status(status, as_json=True)
        return
    addresses = {what: value for what, value in status.links.items() if "://" in value}
    # A schedule that a CronJob keeps is none of KubeRay's objects: its own commands lead there.
    known = status.links if "schedule" in status.links else {**commands(status, place), **addresses}
    show_pairs([("submitted", f"{status.kind}/{status.name}"), *known.items()])


def commands(status: Status, place: str) -> dict[str, str]:
    """What to type next, by what it does."""
    name = f"{status.kind}/{status.name}{place}"
    known = {
        "status": f"raystack status {name}",
        "log": f"raystack logs -f {name}",
        "cancel": f"raystack cancel {name}",
    }
    return known if status.kind == "job" else {**known, "connect": f"raystack connect {name}"}


def show_diagnosis(found: Diagnosis, *, as_json: bool) -> None:
    """Cause, remedy, and what it was concluded from."""
    if as_json:
        sys.stdout.write(json.dumps(asdict(found), indent=2) + "\n")
        return
    show_pairs(
        [("cause", found.cause), ("remedy", found.remedy), *(("evidence", line) for line in found.evidence)]
    )


def show_logs(lines: Iterable[LogLine], *, sources: bool) -> None:
    """Each line as it comes; with `sources` each after where it is from."""
    for line in lines:
        sys.stdout.write(f"{line.source}: {line.text}\n" if sources else f"{line.text}\n")
        sys.stdout.flush()


def wait(remote: JobHandle, *, timeout_s: float | None, follow: bool) -> Status:
    """Say every change and, with `follow`, the driver's log, until it has ended or the time is over. Returns
    the last status.
    """
    last, reader = remote.status(), None
    said = ""
    for last in remote.watch(timeout_s):
        if last.line != said:
            said = last.line
            say(said)
        if follow and last.phase == "running" and (reader is None or not reader.is_alive()):
            reader = threading.Thread(target=_say_log, args=(remote, True), name="raystack-log", daemon=True)
            reader.start()
    if reader is not None and last.finished:
        reader.join(LAST_LINES_S)
    elif follow and last.finished:
        with suppress(LaunchError):  # it ended before it had a log, and its status says why
            _say_log(remote, False)
    return last


def _say_log(remote: JobHandle, follow: bool) -> None:
    try:
        for line in remote.logs(follow=follow, everything=False):
            say(line.text)
    except RaystackError as error:
        warn(f"the log cannot be followed: {error}")


def show_doors(ports: Sequence[tuple[str, str, str | None]], *, tokens: bool) -> None:
    """Addresses on this machine, by what answers there; the token it asks for only where that was
    asked for.
    """
    show_pairs([(what, url) for what, url, _ in ports])
    found = next((token for _, _, token in ports if token is not None), None)
    if found is not None and tokens:
        show_pairs([("token", found)])
    elif found is not None:
        say("the dashboard asks for Ray's token: --token shows it")


class Change(Protocol):
    """One difference from what runs."""

    @property
    def path(self) -> str: ...
    @property
    def before(self) -> Any: ...
    @property
    def after(self) -> Any: ...
    @property
    def effect(self) -> str: ...
    @property
    def why(self) -> str: ...


class Leftover(Protocol):
    """Something that may go."""

    @property
    def kind(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def why(self) -> str: ...


class Check(Protocol):
    """One thing that was looked at."""

    @property
    def name(self) -> str: ...
    @property
    def ok(self) -> bool | None: ...
    @property
    def found(self) -> str: ...


def show_leftovers(found: Sequence[Leftover], *, as_json: bool) -> None:
    """What may be deleted, and why."""
    rows = [
        {"name": f"{each.kind.lower()}/{each.name}", "namespace": each.namespace, "why": each.why}
        for each in found
    ]
    if as_json:
        show_json(rows)
    elif rows:
        show_table(rows)
    else:
        say("nothing is idle or over")


def show_checks(checks: Sequence[Check], *, as_json: bool) -> None:
    """What was looked at, and what was found."""
    if as_json:
        show_json([{"name": check.name, "ok": check.ok, "found": check.found} for check in checks])
    else:
        show_table([{"check": check.name, "is": STATES[check.ok], "found": check.found} for check in checks])


def show_changes(changed: Mapping[str, Sequence[Change]]) -> None:
    """What would change of each object, and how."""
    for reference, every in changed.items():
        if not every:
            say(f"{reference}: no change")
        for change in every:
            sys.stdout.write(
                f"{reference}: {change.effect}: {change.path}: {_short(change.before)} ->"
                f" {_short(change.after)}; {change.why}\n"
            )


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHORT else f"{text[:SHORT]}..."
