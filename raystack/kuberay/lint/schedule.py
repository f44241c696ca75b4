"""Schedules as the operator reads them: five fields, or a word such as `@daily`."""

import re

WORDS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
EVERY = re.compile(r"@every (\d+(\.\d*)?(ns|us|µs|ms|s|m|h))+")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, MONTHS),
    ("day of the week", 0, 6, DAYS),
)


def mistake(schedule: str) -> str | None:
    """What is wrong with a schedule; None where nothing is."""
    if schedule.startswith("@"):
        return (
            None
            if schedule in WORDS or EVERY.fullmatch(schedule)
            else f"{schedule} is no word for a schedule"
        )
    parts = schedule.split()
    if len(parts) != len(FIELDS):
        return f"it has {len(parts)} fields instead of 5"
    for text, (name, low, high, words) in zip(parts, FIELDS, strict=True):
        if not all(_fits(part, low, high, words) for part in text.split(",")):
            return f"{text} is no {name}"
    return None


def _fits(part: str, low: int, high: int, words: tuple[str, ...]) -> bool:
    """Whether `*`, `3`, `1-5` or `jan` lies in the range, with or without a step behind it."""
    span, slash, step = part.partition("/")
    if slash and not (step.isdecimal() and int(step) > 0):
        return False
    if span in ("*", "?"):
        return True
    ends = [_number(end, low, words) for end in span.split("-")]
    if len(ends) > 2 or any(end is None or not low <= end <= high for end in ends):
        return False
    return ends == sorted(end for end in ends if end is not None)


def _number(text: str, low: int, words: tuple[str, ...]) -> int | None:
    if text.isdecimal():
        return int(text)
    return low + words.index(text.lower()) if text.lower() in words else None
