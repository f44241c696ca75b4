"""What machines have: GPUs as a resource of Kubernetes, slices of TPUs, and spot machines."""

from typing import Annotated, Literal, Self

from pydantic import model_validator

from raystack.config.kubernetes import Name
from raystack.config.section import ConflictError, Pattern, Section, Text


class Gpu(Section):
    """The Kubernetes resource behind a worker's GPUs; `resources.gpus_per_worker` is their number."""

    key: (
        Annotated[
            str, Pattern(r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$", "should be a resource name, e.g. nvidia.com/gpu")
        ]
        | None
    ) = None
    """Name of the resource. Not set: `nvidia.com/gpu`, or the name that follows from `share`."""

    model: Text | None = None
    """Value of the node label `nvidia.com/gpu.product`, e.g. `NVIDIA-H100-80GB-HBM3`."""

    share: Annotated[
        str,
        Pattern(
            r"^(none|time-slice|mps|mig:[1-7]g\.\d+gb(\.me)?)$",
            "should be none, time-slice, mps or mig:<n>g.<m>gb, e.g. mig:1g.10gb",
        ),
    ] = "none"
    """Sharing of GPUs. `none`: whole GPUs. `mig:1g.10gb`: a MIG slice of that profile. `time-slice`, `mps`:
    `nvidia.com/gpu.shared`, as the device plugin names them.
    """

    dra: Name | None = None
    """ResourceClaimTemplate for the GPUs (Dynamic Resource Allocation), instead of a counted resource."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.dra is not None and (self.share != "none" or self.key is not None):
            raise ConflictError(
                "a resource claim says itself how GPUs are shared",
                "dra",
                "share",
                "key",
                remedy="drop share and key",
            )
        return self


class Tpu(Section):
    """A slice of TPUs on GKE, whose hosts are made and deleted together."""

    type: Literal["v4", "v5e", "v5p", "v6e", "v7x"]
    """Generation of the TPUs."""

    topology: Annotated[
        str,
        Pattern(r"^[1-9]\d*(x[1-9]\d*){1,2}$", "should be the chips of a slice by side, e.g. 4x4 or 2x2x4"),
    ]
    """Chips of the slice by side, e.g. `4x4`, or `2x2x4` for v4, v5p and v7x."""

    chips: Literal[1, 4, 8] | None = None
    """Chips of each host. Not set: all chips of a slice of v5e or v6e with at most 8, else 4."""


class Spot(Section):
    """Workers on spot machines, which can be preempted; the head never runs there."""

    enabled: bool = False
    """Request spot machines."""

    provider: Literal["gke", "eks", "karpenter", "aks"] = "karpenter"
    """Provider whose labels and taints mark spot machines."""

    fallback: bool = True
    """Use on-demand machines if no spot machines are available."""
