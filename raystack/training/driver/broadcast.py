"""Events to all listeners: the terminal, MLflow, the user's own. None can stop another, or the run."""

from collections.abc import Mapping
from dataclasses import dataclass

from raystack.events import Event, Listener, Warned


@dataclass
class _Failures:
    """The failures of one listener."""

    count: int
    first: str


class Broadcast:
    """Passes each event on to all listeners, in the order in which they are named.

    A listener that raises still gets the next event. The others are warned of its first failure, and `notes`
    has one line for it. KeyboardInterrupt passes through, because it is not the listener's.
    """

    def __init__(self, listeners: Mapping[str, Listener]) -> None:
        self._listeners = dict(listeners)
        self._failures: dict[str, _Failures] = {}

    def __call__(self, event: Event) -> None:
        for name, listener in self._listeners.items():
            try:
                listener(event)
            except Exception as error:  # a user's listener may raise anything, and the run is not its own
                self._failed(name, event, error)

    def add(self, name: str, listener: Listener) -> None:
        """Add a listener, which gets the events from the next one on."""
        self._listeners[name] = listener

    @property
    def notes(self) -> tuple[str, ...]:
        """One line for each listener that has failed."""
        return tuple(
            f"{name} missed {failures.count} event{'s' if failures.count > 1 else ''}: {failures.first}"
            for name, failures in self._failures.items()
        )

    def _failed(self, name: str, event: Event, error: Exception) -> None:
        if name in self._failures:
            self._failures[name].count += 1
            return
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        self._failures[name] = _Failures(1, f"it raised {text}")
        warning = Warned(f"{name} raised {text} at {type(event).__name__}; the run goes on")
        # Only those that have not failed: a warning to a failed one could fail and warn again without an end.
        for other in [each for each in self._listeners if each not in self._failures]:
            try:
                self._listeners[other](warning)
            except Exception as raised:  # as above
                self._failed(other, warning, raised)
