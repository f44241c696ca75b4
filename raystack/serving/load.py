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
        self._at, self._before = perf_counter(), 0.0

    def now(self) -> float:
        """Return the number; long requests count before they have ended."""
        at, spent = perf_counter(), self._spent()
        average = (spent - self._before) / max(at - self._at, 1e-6)
        self._at, self._before = at, spent
        admission = self._model.admission
        return max(average, float(admission.ongoing + admission.waiting))

    def _spent(self) -> float:
        """Seconds of all requests together; less than before where a version has gone."""
        versions = [version.statistics for version in self._model.versions.values()]
        return sum(each.queue.seconds + each.compute_infer.seconds for each in versions)
