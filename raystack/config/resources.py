"""The resources section: workers and their CPUs, GPUs and placement."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from raystack.config.section import ConflictError, Section, Text

Amount = Annotated[float, Field(ge=0)]


def _not_built_in(custom: dict[str, float]) -> dict[str, float]:
    own = {"CPU": "cpus_per_worker", "GPU": "gpus_per_worker"}
    for name in custom:
        if name in own:
            raise ValueError(f"should hold custom resources only; {name} is given as resources.{own[name]}")
    return custom


class Resources(Section):
    """Number of workers, and the resources of each."""

    workers: (
        Literal["inline", "gpus"]
        | PositiveInt
        | Annotated[tuple[PositiveInt, PositiveInt], Field(strict=False)]
    ) = "inline"
    """Number of workers, or `inline`: one worker in the process itself, which starts within seconds.
    `[min, max]` is elastic: the run starts with the available workers, continues with fewer if some are lost,
    and grows if there is room. The global batch stays the same. `gpus` is one worker for each GPU of this
    machine, with `launcher: processes`.
    """

    launcher: Literal["ray", "processes"] = "ray"
    """What starts the workers. `ray` is Ray Train, on one machine or many. `processes` starts them on the
    machine of the command without a Ray cluster, as torchrun does: the first step comes sooner, and nothing
    else takes its share of the cores. There is no elastic run, dashboard or other machine.
    """

    cpus_per_worker: Annotated[int, Field(ge=1)] = 1
    """CPU cores that Ray reserves for each worker; also its number of compute threads."""

    gpus_per_worker: Literal[0, 1] | Annotated[float, Field(gt=0, lt=1)] = 0
    """1 trains on GPUs, one per worker, with NCCL; 0 trains on the CPU, with gloo. A fraction, e.g. 0.25,
    lets runs of one worker share a GPU, such as the trials of a study.
    """

    accelerator_type: Text | None = None
    """Accelerator type of the workers, by Ray's name, e.g. `H100`. Not set: any."""

    device_memory_gib: Annotated[float, Field(gt=0)] | None = None
    """Device memory of each worker in GiB, for the memory plan. Not set: derived from `accelerator_type`, or
    asked of the GPUs of the machine that a local run is on, or unknown.
    """

    custom: Annotated[dict[Text, Amount], AfterValidator(_not_built_in)] = Field(default={})
    """Resources that only Ray counts, per worker, e.g. `{rack_a: 1}`. Devices of Kubernetes, such as network
    cards, are requested in `target.worker.resources`.
    """

    placement: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = "PACK"
    """Placement group strategy: PACK on as few nodes as possible, SPREAD over as many."""

    wait_s: Amount = 0.0
    """Seconds to wait for resources that the cluster does not have yet, e.g. for its autoscaler. 0: fail at
    once.
    """

    @model_validator(mode="after")
    def _least_first(self) -> Self:
        if isinstance(self.workers, tuple) and self.workers[0] > self.workers[1]:
            raise ConflictError("should be [min, max] with min at most max", "workers")
        return self

    @model_validator(mode="after")
    def _what_processes_can(self) -> Self:
        if self.launcher == "ray":
            if self.workers == "gpus":
                raise ConflictError(
                    "`gpus` counts those of this machine",
                    "workers",
                    remedy="set launcher: processes, or a number",
                )
            return self
        if self.workers == "inline":
            remedy = "set workers to their number, e.g. 2, or drop the launcher"
            raise ConflictError(
                "inline is one worker in this process, and `processes` starts others",
                "workers",
                "launcher",
                remedy=remedy,
            )
        if self.workers == "gpus" and self.gpus_per_worker != 1:
            raise ConflictError(
                "`gpus` is one worker for each", "gpus_per_worker", "workers", remedy="set gpus_per_worker: 1"
            )
        return self
