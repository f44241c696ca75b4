"""Use of this machine, under the names that MLflow's own system metrics have and its page shows in their own
tab.

MLflow's sampler ends at the first request that fails and has its own way to send; its probes are used, not
that.
"""

# mypy: disable-error-code="no-untyped-call"
# Parts of MLflow have no annotations.

from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
from mlflow.system_metrics.metrics.rocm_monitor import ROCMMonitor


class SystemProbe:
    """CPU, memory, disk, network and, where there are any, GPUs."""

    def __init__(self) -> None:
        self._monitors: list[BaseMetricsMonitor] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
        for gpus in (GPUMonitor, ROCMMonitor):
            try:
                self._monitors.append(gpus())
                break
            except (ImportError, RuntimeError):
                continue
        self.sample()

    def sample(self) -> dict[str, float]:
        """Values by name, e.g. `system/cpu_utilization_percentage`; the CPU's is the mean since the last
        call.
        """
        values: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            values.update(monitor.aggregate_metrics())
            monitor.clear_metrics()
        return {f"system/{name}": value for name, value in values.items()}
