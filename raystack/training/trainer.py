"""Ray Train's TorchTrainer without the helpers that a raystack run has no use for.

Each of them is a process of its own that imports Ray Train, and on a small machine they are most of the time from the
shell to the first step (see docs/decisions and benchmarks/training.py). Ray's version is pinned because these hooks are
not part of its public interface; the `ray` tests run through them.
"""

from typing import Any

from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2._internal.execution.scaling_policy.fixed import FixedScalingPolicy
from ray.train.v2.api.callback import RayTrainCallback
from ray.train.v2.torch.torch_trainer import TorchTrainer


class Trainer(TorchTrainer):
    """`owned`: the Ray cluster was started for this run and goes with it."""

    def __init__(self, *args: Any, owned: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._owned = owned

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        # raystack reads its data itself; and no placement group outlives a cluster that ends with the run.
        needless = (DatasetsCallback, PlacementGroupCleanerCallback) if self._owned else (DatasetsCallback,)
        return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, needless)]

    def _initialize_and_run_controller(self, **kwargs: Any) -> Any:
        if self._owned:
            kwargs["scaling_policy"] = _NoAutoscaler(kwargs["scaling_policy"].scaling_config)
        return super()._initialize_and_run_controller(**kwargs)


class _NoAutoscaler(FixedScalingPolicy):
    """A cluster of one machine cannot grow: nobody has to be asked for more nodes."""

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:
        pass

    def _maybe_send_resource_request(self) -> None:
        pass
