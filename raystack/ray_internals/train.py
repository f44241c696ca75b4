"""Ray Train's private hooks: the number of workers, and what follows a failure.

It has the private classes that raystack's policies extend, and a TorchTrainer that takes them.
"""

from collections.abc import Mapping
from contextlib import suppress
from copy import copy
from typing import Any

from ray.exceptions import RayError
from ray.train.v2._internal.callbacks.backend_setup import BackendSetupCallback
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.callbacks.state_manager import StateManagerCallback
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
    WorkerHealthCheckTimeoutError,
)
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2._internal.execution.failure_handling import FailureDecision, FailurePolicy
from ray.train.v2._internal.execution.scaling_policy import (
    NoopDecision,
    ResizeDecision,
    ScalingDecision,
    ScalingPolicy,
)
from ray.train.v2._internal.execution.scaling_policy.fixed import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import WorkerGroup, WorkerGroupPollStatus, WorkerGroupState
from ray.train.v2._internal.execution.worker_group.placement_group_handle import DefaultPlacementGroupHandle

# Some of these are public under `ray.train`, but for a type checker that name is the older version's class.
from ray.train.v2.api.callback import RayTrainCallback
from ray.train.v2.api.config import RunConfig, ScalingConfig
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError
from ray.train.v2.torch.torch_trainer import TorchTrainer
from ray.util.placement_group import PlacementGroup

IMPORTED_BY_WORKERS = (
    "ray.train.v2._internal.execution.worker_group.worker",
    "ray.train.v2._internal.callbacks",
)
"""Modules that every worker of Ray Train imports before it trains."""

REACHED: tuple[tuple[object, tuple[str, ...]], ...] = (
    (
        TorchTrainer,
        ("_create_default_callbacks", "_initialize_and_run_controller", "_register_sigint_handler"),
    ),
    (StateManagerCallback, ("after_controller_start",)),
    (FixedScalingPolicy, ("_maybe_send_resource_request", "after_controller_start")),
    (
        ScalingPolicy,
        ("make_decision_for_non_running_worker_group", "make_decision_for_running_worker_group"),
    ),
    (ScalingConfig, ("_resources_per_worker_not_none",)),
    (FailurePolicy, ("make_decision",)),
    (FailureDecision, ("RAISE", "RETRY")),
    (
        WorkerGroupCallback,
        (
            "before_worker_group_start",
            "after_worker_group_start",
            "after_worker_group_training_start",
        ),
    ),
    (WorkerGroup, ("shutdown", "_create_placement_group")),
    (BackendSetupCallback, ("before_execution_group_shutdown",)),
)
"""The attributes used or overridden of what is imported here, for the contract test."""


class ForgivingBackend(BackendSetupCallback):
    """The shutdown of PyTorch's process group, which no dead worker can fail."""

    def before_execution_group_shutdown(self, execution_group: Any) -> None:
        # Ray Train expects a RayActorError, but a worker that Ray's memory monitor ended raises
        # OutOfMemoryError. The shutdown then failed, and so did every later start, which begins with it.
        with suppress(RayError):
            super().before_execution_group_shutdown(execution_group)


class Placed(WorkerGroupCallback):
    """Places the workers in a placement group that is there already, as that of a trial that trains."""

    def __init__(self, group: PlacementGroup) -> None:
        self._group = group

    def before_worker_group_start(self, worker_group_context: Any) -> None:
        handle = _Borrowed(self._group)
        # The controller's process has one run, and so one place.
        group: Any = WorkerGroup
        group._create_placement_group = lambda *args: handle


class _Borrowed(DefaultPlacementGroupHandle):
    """A placement group that its owner removes."""

    def shutdown(self) -> None:
        """Keep it for the next attempt."""


class HookedTrainer(TorchTrainer):
    """A TorchTrainer whose callbacks and policies are chosen by methods that a subclass overrides."""

    def callbacks(self, default: list[RayTrainCallback]) -> list[RayTrainCallback]:
        """Return the callbacks of the run, instead of `default`."""
        return default

    def policies(
        self, scaling: ScalingPolicy, failures: FailurePolicy
    ) -> tuple[ScalingPolicy, FailurePolicy]:
        """Return the policies of the run, instead of Ray Train's own."""
        return scaling, failures

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        default = super()._create_default_callbacks()
        return self.callbacks(
            [
                ForgivingBackend(self.backend_config) if isinstance(one, BackendSetupCallback) else one
                for one in default
            ]
        )

    def _initialize_and_run_controller(self, **kwargs: Any) -> Any:
        scaling, failures = self.policies(kwargs["scaling_policy"], kwargs["failure_policy"])
        return super()._initialize_and_run_controller(
            **{**kwargs, "scaling_policy": scaling, "failure_policy": failures}
        )

    def _register_sigint_handler(self, controller: Any) -> None:
        """Install no handler, so that Ctrl-C raises KeyboardInterrupt as everywhere."""
        # The workers end with the driver's connection to Ray.


class TrainView(StateManagerCallback):
    """Shows the run in the Train view of Ray's dashboard, with `settings` as the config of its loop."""

    # What the loop really gets has the code of the task, which would be kept there and cannot be shown.

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(datasets={})
        self._settings = dict(settings)

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:
        shown = copy(train_run_context)  # `replace` would give the run another id
        object.__setattr__(shown, "train_loop_config", self._settings)
        super().after_controller_start(shown)


class FixedPolicy(FixedScalingPolicy):
    """Ray Train's policy of a fixed number of workers, with public names for the private parts in use."""

    @property
    def per_worker(self) -> Mapping[str, float]:
        """Resources of each worker."""
        needed: Mapping[str, float] = self.scaling_config._resources_per_worker_not_none
        return needed

    def resized(self, count: int) -> ResizeDecision:
        """Return the decision to start `count` workers."""
        return ResizeDecision(count, self.scaling_config._resources_per_worker_not_none)

    def ask_for_nodes(self) -> None:
        """Request the workers' resources from the cluster's autoscaler."""
        # Ray Train limits how often a request is sent, so this may be called with every decision.
        self._maybe_send_resource_request()  # type: ignore[no-untyped-call]


__all__ = [
    "IMPORTED_BY_WORKERS",
    "REACHED",
    "ControllerError",
    "DatasetsCallback",
    "FailureDecision",
    "FailurePolicy",
    "FixedPolicy",
    "ForgivingBackend",
    "HookedTrainer",
    "NoopDecision",
    "Placed",
    "PlacementGroupCleanerCallback",
    "RayTrainCallback",
    "ResizeDecision",
    "RunConfig",
    "ScalingConfig",
    "ScalingDecision",
    "ScalingPolicy",
    "StateManagerCallback",
    "TrainRunContext",
    "TrainView",
    "TrainingFailedError",
    "WorkerGroup",
    "WorkerGroupCallback",
    "WorkerGroupError",
    "WorkerGroupPollStatus",
    "WorkerGroupStartupTimeoutError",
    "WorkerGroupState",
    "WorkerHealthCheckFailedError",
    "WorkerHealthCheckTimeoutError",
]
