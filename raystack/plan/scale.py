"""The workers of a training, and the resources of each."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from raystack.config import RunConfig
from raystack.config.resources import Resources
from raystack.config.target import Local
from raystack.errors import PlanError, Problem
from raystack.plan.accelerators import ACCELERATORS


def device_memory(config: Resources) -> int | None:
    """Return the bytes of each worker's device, from the config or its type; None if neither says."""
    known = ACCELERATORS.get(config.accelerator_type or "") if config.gpus_per_worker else None
    share = config.gpus_per_worker or 1
    gib = config.device_memory_gib or (None if known is None else known.memory_gib * share)
    return int(gib * 2**30) if gib is not None else None


@dataclass(frozen=True)
class Workers:
    """The number of workers, their placement and their resources."""

    inline: bool
    """True: one worker in the calling process, without Ray."""
    count: int
    """World size; of an elastic run, the largest."""
    least: int
    """Smallest world size of an elastic run; `count` if the number is fixed."""
    device: Literal["cpu", "cuda"]
    backend: Literal["gloo", "nccl"]
    resources: Mapping[str, float]
    """Resources that Ray reserves for each worker."""
    threads: int
    """Number of compute threads of each worker."""
    placement: str
    accelerator_type: str | None
    wait_s: float
    """Seconds that the run may wait for resources."""
    memory: int | None = None
    """Bytes of each worker's device; None: not known."""
    launcher: Literal["ray", "processes"] = "ray"
    """What starts the workers, unless it is inline."""

    @property
    def on_ray(self) -> bool:
        """True if Ray starts the workers."""
        return not self.inline and self.launcher == "ray"

    @property
    def needed(self) -> dict[str, float]:
        """Resources of all workers together; of an elastic run, of the fewest."""
        return {name: amount * self.least for name, amount in self.resources.items()}

    @property
    def elastic(self) -> bool:
        """True if the number of workers may change during the run."""
        return self.least < self.count


def counted(config: RunConfig, gpus: int) -> RunConfig:
    """Return the config with the number of workers that `workers: gpus` is on a machine with so many.

    Raises PlanError if it has none.
    """
    if config.resources.workers != "gpus" or not isinstance(config.target, Local):
        return config
    if not gpus:
        rule = "is one worker for each GPU of this machine, and it has none"
        remedy = "set resources=processes2 for two workers on the CPU, or resources=inline"
        raise PlanError(Problem("resources.workers", rule=rule, got="gpus", remedy=remedy))
    resources = config.resources.model_copy(update={"workers": gpus})
    return config.model_copy(update={"resources": resources})


def sized(config: RunConfig, memory_gib: Callable[[], float | None]) -> RunConfig:
    """Return the config with the memory of this machine's GPUs, where workers on them have none yet.

    `memory_gib` returns a whole GPU's, or None if it is not known.
    """
    resources, target = config.resources, config.target
    here = isinstance(target, Local) and target.address is None and resources.gpus_per_worker
    if not here or device_memory(resources) is not None or (gib := memory_gib()) is None:
        return config
    share = {"device_memory_gib": gib * resources.gpus_per_worker}
    return config.model_copy(update={"resources": resources.model_copy(update=share)})


def check_launcher(config: RunConfig) -> None:
    """Raise PlanError if processes of this machine are to have what only Ray can give."""
    if config.resources.launcher == "processes" and (problems := list(_beyond_processes(config))):
        raise PlanError(problems)


def _beyond_processes(config: RunConfig) -> Iterator[Problem]:
    resources, target, on_ray = config.resources, config.target, "set resources.launcher=ray"
    if not isinstance(target, Local):
        rule = "processes are started on the machine of the command, and a cluster's workers by Ray"
        got, remedy = f"processes with target={target.kind}", f"{on_ray}, or target=local"
        yield Problem("resources.launcher", rule=rule, got=got, remedy=remedy)
    elif target.dashboard:
        rule, remedy = "it is Ray's, and processes start no Ray", f"{on_ray}, or target.dashboard=false"
        yield Problem("target.dashboard", rule=rule, got="true", remedy=remedy)
    if isinstance(resources.workers, tuple):
        least, most = resources.workers
        rule = "the number of processes is fixed: no node of one machine is lost or comes back"
        remedy = f"set resources.workers={most}, or {on_ray[4:]}"
        yield Problem("resources.workers", rule=rule, got=f"[{least},{most}]", remedy=remedy)
    only_ray = {
        "custom": resources.custom,
        "accelerator_type": resources.accelerator_type,
        "wait_s": resources.wait_s,
        "placement": resources.placement if "SPREAD" in resources.placement else None,
    }
    for key, value in only_ray.items():
        if value:
            rule, remedy = "only Ray chooses the place of a worker, or waits for one", f"drop it, or {on_ray}"
            yield Problem(f"resources.{key}", rule=rule, got=f"{value}", remedy=remedy)


def plan_workers(config: Resources) -> Workers:
    """Decide on the workers; raise PlanError if inline training is to have what only Ray can give.

    `gpus` counts as one worker where nobody has counted them.
    """
    inline = config.workers == "inline"
    if inline and (config.custom or config.accelerator_type):
        key = "custom" if config.custom else "accelerator_type"
        rule = (
            "inline trains in the process that was started, and Ray does not choose its place by"
            f" resources.{key}"
        )
        raise PlanError(
            Problem(
                "resources.workers",
                rule=rule,
                got="inline",
                remedy=f"set resources.workers=1 or drop resources.{key}",
            )
        )
    least, most = (
        config.workers
        if isinstance(config.workers, tuple)
        else (1, 1)
        if isinstance(config.workers, str)
        else (config.workers,) * 2
    )
    gpus = config.gpus_per_worker
    if 0 < gpus < 1 and most > 1:
        rule = "the workers of a run cannot share a GPU, because NCCL refuses two ranks on one"
        remedy = "set it to 1, or resources.workers=1"
        raise PlanError(Problem("resources.gpus_per_worker", rule=rule, got=f"{gpus:g}", remedy=remedy))
    per_worker = {
        "CPU": float(config.cpus_per_worker),
        **({"GPU": float(gpus)} if gpus else {}),
        **config.custom,
    }
    return Workers(
        inline=inline,
        count=most,
        least=least,
        device="cuda" if gpus else "cpu",
        backend="nccl" if gpus else "gloo",
        resources=per_worker,
        threads=config.cpus_per_worker,
        placement=config.placement,
        accelerator_type=config.accelerator_type,
        wait_s=config.wait_s,
        memory=device_memory(config),
        launcher=config.launcher,
    )
