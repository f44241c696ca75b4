"""Known GPUs by Ray's name, with their memory, their peak FLOP/s and the labels of their nodes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

Peaks = Mapping[str, float]
"""Dense peak in FLOP/s by precision; 0 if the device has no units for it."""


@dataclass(frozen=True)
class Accelerator:
    """One GPU model, in all of its variants."""

    memory_gib: float
    """GiB that CUDA reports, rounded down; the smallest if the model comes in several sizes."""
    peaks: Peaks
    """Peaks from NVIDIA's data sheets."""
    products: tuple[str, ...]
    """Values of the node label `nvidia.com/gpu.product`, which NVIDIA's GPU feature discovery sets."""
    variants: Mapping[str, Peaks] = field(default_factory=dict)
    """Peaks of variants that differ, by a part of the device's name."""


ACCELERATORS: Mapping[str, Accelerator] = {
    "B200": Accelerator(178.0, {"bf16": 2250e12, "fp32": 80e12}, ("NVIDIA-B200",)),
    "H200": Accelerator(139.0, {"bf16": 989e12, "fp32": 67e12}, ("NVIDIA-H200",)),
    "H100": Accelerator(
        78.0,
        {"bf16": 989e12, "fp32": 67e12},
        ("NVIDIA-H100-80GB-HBM3", "NVIDIA-H100-PCIe", "NVIDIA-H100-NVL"),
        {
            "H100 NVL": {"bf16": 835e12, "fp32": 60e12},
            "H100 PCIe": {"bf16": 756e12, "fp32": 51e12},
        },
    ),
    "A100": Accelerator(
        39.0,
        {"bf16": 312e12, "fp32": 19.5e12},
        (
            "NVIDIA-A100-SXM4-40GB",
            "NVIDIA-A100-SXM4-80GB",
            "NVIDIA-A100-PCIE-40GB",
            "NVIDIA-A100-80GB-PCIe",
        ),
    ),
    "A100-40G": Accelerator(
        39.0, {"bf16": 312e12, "fp32": 19.5e12}, ("NVIDIA-A100-SXM4-40GB", "NVIDIA-A100-PCIE-40GB")
    ),
    "A100-80G": Accelerator(
        78.0, {"bf16": 312e12, "fp32": 19.5e12}, ("NVIDIA-A100-SXM4-80GB", "NVIDIA-A100-80GB-PCIe")
    ),
    "L40S": Accelerator(44.0, {"bf16": 362e12, "fp32": 91.6e12}, ("NVIDIA-L40S",)),
    "L4": Accelerator(21.9, {"bf16": 121e12, "fp32": 30.3e12}, ("NVIDIA-L4",)),
    "A10G": Accelerator(21.9, {"bf16": 70e12, "fp32": 35e12}, ("NVIDIA-A10G",)),
    "T4": Accelerator(14.5, {"bf16": 0.0, "fp32": 8.1e12}, ("Tesla-T4",)),
    "V100": Accelerator(
        15.7,
        {"bf16": 0.0, "fp32": 15.7e12},
        ("Tesla-V100-SXM2-16GB", "Tesla-V100-SXM2-32GB", "Tesla-V100-PCIE-16GB", "Tesla-V100-PCIE-32GB"),
    ),
}
"""The known GPUs by Ray's name of the accelerator type."""


def peak_flops(device_name: str, precision: str) -> float | None:
    """Return the peak in FLOP/s of a device as CUDA names it; None if not known (a CPU, a new GPU)."""
    # Variants first, because a variant's name contains its model's. Whole words, because "L4" is in "L40S".
    forms = [form for each in ACCELERATORS.values() for form in each.variants.items()]
    for name, peaks in [*forms, *((name, each.peaks) for name, each in ACCELERATORS.items())]:
        if re.search(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", device_name, re.IGNORECASE):
            return peaks.get(precision) or None
    return None
