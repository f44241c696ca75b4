"""Syntax of schedules for RayCronJob and CronJob.

KubeRay's operator and Kubernetes both parse schedules with `ParseStandard` of Go's robfig/cron: five fields,
a word such as `@daily`, or `@every` with a Go duration. Sunday is 0 and not 7, and a range does not wrap
around. Both reject a time zone in the schedule and have a field for it.
"""

import re

WORDS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
DURATION = re.compile(r"\+?((\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h))+")
"""Go duration that is not negative, e.g. `1h30m`."""
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, MONTHS),
    ("day of the week", 0, 6, DAYS),
)


def schedule_mistake(schedule: str) -> str | None:
    """Return what is wrong with a schedule, or None."""
    if "TZ" in schedule:
        return "should hold no time zone"
    if schedule.startswith("@"):
        word, _, duration = schedule.partition(" ")
        if schedule in WORDS or (word == "@every" and DURATION.fullmatch(duration)):
            return None
        return f"should be one of {', '.join(WORDS)}, @every with e.g. 1h30m, or five fields"
    parts = schedule.split()
    if len(parts) != len(FIELDS):
        return f"should have five fields, and has {len(parts)}"
    for text, (name, low, high, words) in zip(parts, FIELDS, strict=True):
        if not all(_fits(part, low, high, words) for part in text.split(",")):
            return f"the {name} should be {low} to {high}, a range, a step or *, and is {text}"
    return None


def _fits(part: str, low: int, high: int, words: tuple[str, ...]) -> bool:
    """Return whether `*`, `5`, `mon-fri`, `*/10` or `1-30/5` lies in the range."""
    span, slash, step = part.partition("/")
    if slash and not (step.isdecimal() and int(step) > 0):
        return False
    if span in ("*", "?"):
        return True
    ends = [_number(end, low, words) for end in span.split("-")]
    return len(ends) <= 2 and low <= ends[0] <= ends[-1] <= high


def _number(text: str, low: int, words: tuple[str, ...]) -> int:
    """Return the number of a value or name, -1 if it is none."""
    if text.lower() in words:
        return low + words.index(text.lower())
    return int(text) if text.isdecimal() else -1
