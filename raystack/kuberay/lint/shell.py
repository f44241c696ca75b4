"""Effects of a shell on a command that is not quoted for it."""

SPECIAL = frozenset(";&|<>()\n~#")
"""Characters that a shell evaluates outside of quotes.

`$` and backticks are evaluated inside double quotes as well; `*` and `?` only if files match, which cannot be
known here.
"""


def acts_on(command: str) -> str | None:
    """Return the first text that a shell would evaluate instead of passing on, or an open quote."""
    quote, index = "", 0
    text = command.strip()
    while index < len(text):
        char = text[index]
        if quote == "'":
            quote = "" if char == "'" else quote
        elif char == "\\":
            index += 1
        elif char in ("'", '"'):
            quote = "" if char == quote else (quote or char)
        elif char in "$`" or (not quote and char in SPECIAL and not _plain(text, index)):
            return "a line break" if char == "\n" else char
        index += 1
    return "a quote that is never closed" if quote else None


def _plain(text: str, index: int) -> bool:
    """Return whether a special character is plain at this position."""
    # A comment or home directory only starts at the beginning of a word.
    return text[index] in "#~" and index > 0 and not text[index - 1].isspace()
