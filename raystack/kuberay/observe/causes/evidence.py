"""What events say, in a line each, once for all objects that it is about."""

import re

from raystack.kuberay.api.kinds import Object
from raystack.kuberay.observe.snapshot import at


def told(events: list[Object] | tuple[Object, ...]) -> tuple[str, ...]:
    """Return the last events in a line each, merging those about several objects."""
    about: dict[tuple[str, str], list[str]] = {}
    for event in events:
        name = str(at(event, "involvedObject", "name"))
        words = re.sub(
            r" If you observe this error consistently.*?for more details\.",
            "",
            first_line(event.get("message")),
        )
        words = re.sub(rf"(?<![\w-])(?:[\w-]+/)?{re.escape(name)}(?![\w-])", "it", words)
        said = (str(event.get("reason")), words)
        about[said] = [name, *(other for other in about.pop(said, []) if other != name)]
    lines = [f"{_names(names)}: {reason}: {words}" for (reason, words), names in about.items()]
    return tuple(lines[-5:])


def _names(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def first_line(text: str | None) -> str:
    """Return the first line of a message."""
    return next((line.strip() for line in (text or "").splitlines() if line.strip()), "")
