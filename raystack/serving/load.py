"""How many requests a model has at a time, for Serve's autoscaler."""

from time import perf_counter

from raystack.serving.versions import Model


class Load:
    """The number of requests that are worked on or wait, on average since the last look.

    A look at one moment sees few of those that take milliseconds, and none whose pass runs on the event loop:
    between two passes. Their time together, divided by the time that has passed, is the average.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._at, self._ended, self._spent = perf_counter(), 0, 0.0

    def now(self) -> float:
        """Return the number; requests that have not ended count, too."""
        at, (ended, spent) = perf_counter(), self._sums()
        passed = max(at - self._at, 1e-6)
        # One that is longer than the time since the last look was not there more than once.
        average = min((spent - self._spent) / passed, float(ended - self._ended))
        self._at, self._ended, self._spent = at, ended, spent
        admissions = [self._model.admission, *(each.admission for each in self._model.others.values())]
        there = sum(each.ongoing + each.waiting for each in admissions if each is not None)
        return max(average, float(there))

    def _sums(self) -> tuple[int, float]:
        """Number and seconds of all requests; less than before where a version has gone."""
        # Requests that are handed on are held here; and the stable version has to be able to take them back.
        both = *self._model.versions.values(), *self._model.others.values()
        versions = [version.statistics for version in both]
        each = [duration for one in versions for duration in (one.success, one.fail)]
        return sum(one.count for one in each), sum(one.seconds for one in each)
