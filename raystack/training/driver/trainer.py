"""Ray Train's TorchTrainer with raystack's own policies: the number of workers, and what follows a failure.

Helpers of Ray Train that a raystack run does not need are left out. Each is a process that imports Ray Train;
on a small machine they take most of the time from the shell to the first step
(docs/decisions/0003-start-up.md, benchmarks/training.py).
"""

import os
import time
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import ray
from ray.util import get_current_placement_group

from raystack.checkpoint import CheckpointStore
from raystack.config.faults import Faults
from raystack.ray_internals import core
from raystack.ray_internals.train import (
    ControllerError,
    DatasetsCallback,
    FailureDecision,
    FailurePolicy,
    FixedPolicy,
    HookedTrainer,
    NoopDecision,
    Placed,
    PlacementGroupCleanerCallback,
    RayTrainCallback,
    ScalingConfig,
    ScalingDecision,
    ScalingPolicy,
    StateManagerCallback,
    TrainingFailedError,
    TrainRunContext,
    TrainView,
    WorkerGroup,
    WorkerGroupCallback,
    WorkerGroupError,
    WorkerGroupPollStatus,
    WorkerGroupStartupTimeoutError,
    WorkerGroupState,
)
from raystack.ray_internals.variables import TRAIN_START_TIMEOUT
from raystack.training.driver.coordinator import RunState
from raystack.training.driver.recovery import classify, classify_start, told_to_stop
from raystack.training.driver.retries import Retries

SETTLE_S = 3.0
"""Seconds that an elastic run waits for the resources of ended workers before it continues with fewer."""
PLACED_S = 15
"""Seconds that the workers of an elastic run may wait for their places before the number is decided anew."""
LOOK_S = 5.0
"""Seconds between two checks for draining nodes and for room for more workers."""
# Ray Train's controller asks for the next decision without a pause of its own.
PAUSE_S = 0.1
"""Seconds between two decisions while there is nothing to start."""


class ActorLink:
    """The way to a coordinator that is an actor of Ray's."""

    def __init__(self, coordinator: Any) -> None:
        self._coordinator = coordinator

    def ask(self, order: str, *values: Any) -> Any:
        """Call the coordinator's method `order`, and return what it returns."""
        return ray.get(getattr(self._coordinator, order).remote(*values))

    def send(self, order: str, *values: Any) -> None:
        """Call the coordinator's method `order` without waiting for it."""
        getattr(self._coordinator, order).remote(*values)


class Trainer(HookedTrainer):
    """A TorchTrainer that recovers from failures and resizes.

    `owned`: the Ray cluster was started for this run and ends with it. `counts`: the possible numbers of
    workers, largest first. `store`: the run's checkpoints. `settings`: what Ray's dashboard shows as the
    run's config; None without a dashboard. Without a coordinator the run is inline and never recovers or
    resizes.
    """

    def __init__(
        self,
        *args: Any,
        owned: bool,
        coordinator: Any | None,
        faults: Faults,
        counts: tuple[int, ...],
        store: CheckpointStore,
        settings: Mapping[str, Any] | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._owned, self._coordinator, self._faults, self._counts = owned, coordinator, faults, counts
        self._store, self._settings = store, settings

    def callbacks(self, default: list[RayTrainCallback]) -> list[RayTrainCallback]:
        # A trial of a study has its places already.
        place = get_current_placement_group()
        # raystack reads its data itself, and no placement group outlives a cluster that ends with the run.
        owned = self._owned or place is not None
        needless = (DatasetsCallback, PlacementGroupCleanerCallback) if owned else (DatasetsCallback,)
        view = [TrainView(self._settings)] if self._settings is not None else []
        left = (one for one in default if not isinstance(one, (*needless, StateManagerCallback)))
        placed = [Placed(place)] if place is not None else []
        return [_Abandoned(), *placed, *left, *view]

    def policies(
        self, scaling: ScalingPolicy, failures: FailurePolicy
    ) -> tuple[ScalingPolicy, FailurePolicy]:
        return (
            _Scaling(scaling.scaling_config, self._coordinator, self._counts, owned=self._owned),
            _Failures(failures.failure_config, self._coordinator, self._faults, self._store),
        )


class _Abandoned(WorkerGroupCallback):
    """Shuts down a worker group that failed while it started."""

    # Ray Train loses its reference to such a group, and the group's workers keep their resources.

    def __init__(self) -> None:
        self._starting: WorkerGroup | None = None

    def before_worker_group_start(self, worker_group_context: Any) -> None:
        if self._starting is not None:
            group, self._starting = self._starting, None
            group.shutdown()

    def after_worker_group_start(self, worker_group: WorkerGroup) -> None:
        self._starting = worker_group

    def after_worker_group_training_start(self, worker_group: WorkerGroup) -> None:
        self._starting = None


class _Failures(FailurePolicy):
    """Decides between another attempt and the end."""

    def __init__(self, failure_config: Any, coordinator: Any, faults: Faults, store: CheckpointStore) -> None:
        super().__init__(failure_config)
        self._link = ActorLink(coordinator)
        self._retries = Retries(self._link, faults, store)
        self._told_to_wait = False

    def make_decision(self, training_failed_error: TrainingFailedError) -> FailureDecision:
        state: RunState = self._link.ask("state")
        if isinstance(training_failed_error, ControllerError):
            if isinstance(training_failed_error.controller_failure, WorkerGroupStartupTimeoutError):
                return self._wait()
            cause = classify_start(training_failed_error.controller_failure)
        else:
            assert isinstance(training_failed_error, WorkerGroupError)
            cause = classify(training_failed_error.worker_failures, state.alarm)
        self._told_to_wait = False
        return FailureDecision.RETRY if self._retries.again(cause, state) else FailureDecision.RAISE

    def _wait(self) -> FailureDecision:
        """Retry without an end, because a node may be on its way; warn once."""
        # A stop request ends the wait, in make_decision_for_non_running_worker_group.
        if not self._told_to_wait:
            self._told_to_wait = True
            self._retries.tell("there is no place for the workers now; the run waits for one")
        return FailureDecision.RETRY


class _Scaling(FixedPolicy):
    """Chooses the largest possible number of workers for which there is room."""

    def __init__(
        self, scaling_config: ScalingConfig, coordinator: Any, counts: tuple[int, ...], *, owned: bool
    ) -> None:
        super().__init__(scaling_config)
        self._coordinator, self._counts, self._owned = coordinator, counts, owned
        self._waiting_since: float | None = None
        self._own: Counter[str] | None = Counter()
        """Workers by node of the group that ran last; None: not known."""
        # Its resources count as free in `_settled`, because it keeps them until the next group starts.
        self._looked = 0.0
        self._room_seen = False

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:
        # Nothing of an attempt that ended is needed any more, and its workers may hang in the shutdown.
        os.environ.setdefault("TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S", "1")
        if len(self._counts) > 1:
            # With room, workers are placed at once. If they are not, Ray has not noticed yet that a node is
            # gone, and a smaller number has to be tried soon.
            os.environ.setdefault(TRAIN_START_TIMEOUT, str(PLACED_S))
        if not self._owned:
            super().after_controller_start(train_run_context)

    def ask_for_nodes(self) -> None:
        # A cluster of one machine cannot grow, so no autoscaler has to be asked.
        if not self._owned:
            super().ask_for_nodes()

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        self.ask_for_nodes()
        state: RunState = ray.get(self._coordinator.state.remote())
        if state.stop == "terminate":
            raise told_to_stop()
        count = self._counts[0] if len(self._counts) == 1 else self._settled()
        if count is None or state.hold_s > 0:
            time.sleep(PAUSE_S)
            return NoopDecision()
        self._waiting_since, self._looked, self._room_seen, self._own = None, time.monotonic(), False, None
        return self.resized(count)

    def make_decision_for_running_worker_group(
        self, worker_group_state: WorkerGroupState, worker_group_status: WorkerGroupPollStatus
    ) -> ScalingDecision:
        self.ask_for_nodes()
        self._own = Counter(worker.metadata.node_id for worker in worker_group_state.workers)
        if time.monotonic() - self._looked >= LOOK_S:
            self._looked = time.monotonic()
            self._look(worker_group_state)
        return NoopDecision()

    def _look(self, group: WorkerGroupState) -> None:
        """Stop the workers with a checkpoint if one of their nodes drains, or if there is room for more."""
        draining = core.draining_nodes()
        if any(worker.metadata.node_id in draining for worker in group.workers):
            self._coordinator.stop.remote("drain")
            return
        assert self._own is not None
        room = self._largest(self._room(available=True, own=self._own)) or 0
        # Twice in a row, because resources are also free for a moment when something else takes them next.
        if room > group.num_workers and self._room_seen:
            self._coordinator.stop.remote("resize")
        self._room_seen = room > group.num_workers

    def _settled(self) -> int | None:
        """Return the number of workers to start with; None: not yet known, or too few."""
        # `best` is the room on an idle cluster. Until SETTLE_S has passed, less than that is free because
        # Ray returns the resources of ended workers one by one.
        now = time.monotonic()
        self._waiting_since = self._waiting_since or now
        best = self._largest(self._room(available=False))
        free = self._largest(self._room(available=True, own=self._own)) if self._own is not None else best
        return free if free == best or now - self._waiting_since > SETTLE_S else None

    def _largest(self, room: int) -> int | None:
        return next((count for count in self._counts if count <= room), None)

    def _room(self, *, available: bool, own: Mapping[str, int] = MappingProxyType({})) -> int:
        """Return how many workers fit on all nodes together.

        `available`: into the free resources only, not the total. `own`: workers by node that are there
        already and count as well.
        """
        needed = self.per_worker
        free = core.available_by_node() if available else None
        leaving = core.draining_nodes()
        places = [
            _fit(free.get(node["NodeID"], {}) if free is not None else node["Resources"], needed)
            + own.get(node["NodeID"], 0)
            for node in ray.nodes()
            if node["Alive"] and node["NodeID"] not in leaving
        ]
        match self.scaling_config.placement_strategy:
            case "STRICT_PACK":
                return max(places, default=0)
            case "STRICT_SPREAD":
                return sum(min(1, fitting) for fitting in places)
        return sum(places)


def _fit(has: Mapping[str, float], needs: Mapping[str, float]) -> int:
    return int(min(has.get(name, 0.0) // amount for name, amount in needs.items() if amount > 0))
