"""The data of a training: the order of samples, and batches on their way to the device.

The order of samples is a pure function of (seed, epoch, position), so a run's position in its data is one
integer: the number of samples consumed. A step consumes the next G global positions, with G the global batch;
the workers split that range, and accumulation splits each worker's part again. Positions continue over
epochs without a gap. Each is consumed by exactly one worker, whatever their number; only the last step of a
run may be smaller than G (docs/decisions/0002-sample-order.md).
"""

from raystack.training.data.agreement import check_same
from raystack.training.data.batch_plan import BatchPlan, MicroBatch
from raystack.training.data.batches import eval_batches, training_batches
from raystack.training.data.order import BucketOrder, Order, Permutation, SampleOrder, WeightedOrder
from raystack.training.data.sources import open_eval_data, open_train_data, sample_order, size, token_budget
from raystack.training.data.structure import to_device

__all__ = [
    "BatchPlan",
    "BucketOrder",
    "MicroBatch",
    "Order",
    "Permutation",
    "SampleOrder",
    "WeightedOrder",
    "check_same",
    "eval_batches",
    "open_eval_data",
    "open_train_data",
    "sample_order",
    "size",
    "to_device",
    "token_budget",
    "training_batches",
]
