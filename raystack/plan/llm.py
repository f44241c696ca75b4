"""The devices of a language model's replica: how many hold one copy of it, and what Ray reserves for each."""

from raystack.config.serving import Serving
from raystack.errors import PlanError, Problem


def tensor_parallel_size(serving: Serving) -> int:
    """Return the number of devices that each layer is split over."""
    return serving.llm.tensor_parallel_size or max(1, int(serving.gpus_per_replica) // _stages(serving))


def devices(serving: Serving) -> int:
    """Return the number of devices that hold one copy of the model."""
    return tensor_parallel_size(serving) * _stages(serving)


def bundles(serving: Serving) -> list[dict[str, float]]:
    """Return what Ray reserves for one replica: a bundle for each GPU, or one of CPUs."""
    cpus, gpus = serving.cpus_per_replica, serving.gpus_per_replica
    if not gpus:
        return [{"CPU": cpus}]
    count = devices(serving)
    return [{"GPU": gpus / count, **({"CPU": cpus / count} if cpus else {})} for _ in range(count)]


def check_devices(serving: Serving) -> None:
    """Raise PlanError if a copy of the model does not fit the devices of a replica in number."""
    gpus, count = serving.gpus_per_replica, devices(serving)
    if gpus and count != max(1, gpus):
        rule = f"a copy of the model is on {count} GPU(s), and a replica has {gpus:g}"
        remedy = f"set serving.gpus_per_replica={count}"
        size = tensor_parallel_size(serving)
        raise PlanError(Problem("serving.llm.tensor_parallel_size", rule=rule, got=str(size), remedy=remedy))
    if not gpus and not serving.cpus_per_replica:
        rule = "has to be more than 0 for a language model without a GPU"
        raise PlanError(Problem("serving.cpus_per_replica", rule=rule, got="0"))


def _stages(serving: Serving) -> int:
    stages = serving.llm.engine_kwargs.get("pipeline_parallel_size", 1)
    return stages if isinstance(stages, int) and stages > 0 else 1
