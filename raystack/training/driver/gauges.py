"""A run's metrics on Ray's own metrics endpoint, for the dashboard and Prometheus."""

from ray.util.metrics import Gauge

from raystack.events import Evaluated, Event, Stepped


class Gauges:
    """Ray gauges for the metrics: `train/loss` becomes `ray_raystack_train_loss{experiment, run_id}`."""

    def __init__(self, experiment: str, run_id: str) -> None:
        self._tags = {"experiment": experiment, "run_id": run_id}
        self._gauges: dict[str, Gauge] = {}

    def update(self, event: Event) -> None:
        """Set the gauges from an event that has metrics."""
        if not isinstance(event, (Stepped, Evaluated)):
            return
        self._set("raystack_step", event.step)
        for name, value in event.metrics.items():
            # Prometheus allows letters, digits and underscores only.
            self._set("raystack_" + "".join(letter if letter.isalnum() else "_" for letter in name), value)

    def _set(self, name: str, value: float) -> None:
        if name not in self._gauges:
            self._gauges[name] = Gauge(
                name, description="Reported by rank 0 of a raystack run.", tag_keys=tuple(self._tags)
            )
        self._gauges[name].set(value, self._tags)
