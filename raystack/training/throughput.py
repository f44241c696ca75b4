"""How fast a run goes: step time and its phases, samples and tokens per second, FLOP/s and MFU."""

import time

from raystack.training.world import World


class Throughput:
    """Times the loop. The phases of a step are measured in the steps that are reported: that waits for the
    device.
    """

    def __init__(self, world: World, peak: float | None) -> None:
        self.flops_per_step: float | None = None
        """Floating point operations of one step on this worker, once they have been counted."""
        self._world, self._peak = world, peak
        self.precise = False
        """Whether the phases of this step are measured."""
        self._phases: dict[str, float] = {}
        self.restart()

    def restart(self) -> None:
        """Begin a new window: what happened until now does not count, such as an evaluation."""
        self._steps = self._samples = self._tokens = 0
        self._window = time.perf_counter()

    def begin(self, *, precise: bool) -> None:
        """Begin a step, whose phases are measured if `precise`."""
        self.precise = precise
        self._phases = {}

    def add(self, phase: str, seconds: float) -> None:
        """So long a phase of the step took; one that comes several times in a step is added up."""
        self._phases[phase] = self._phases.get(phase, 0.0) + seconds

    def end(self, samples: int, tokens: int) -> None:
        """End a step in which all workers together consumed `samples`, and this one `tokens`."""
        self._steps += 1
        self._samples += samples
        self._tokens += tokens

    def report(self) -> dict[str, float]:
        """The window since the last restart, by metric name; then begin a new one. Seconds, 1/s, FLOP/s."""
        if self._steps == 0:
            return {}
        elapsed = time.perf_counter() - self._window
        step_s = elapsed / self._steps
        metrics = {"speed/step_s": step_s, "speed/samples_per_s": self._samples / elapsed}
        metrics |= {f"speed/{name}_s": seconds for name, seconds in self._phases.items()}
        if self._tokens:
            metrics["speed/tokens_per_s"] = self._tokens * self._world.size / elapsed
        if self.flops_per_step:
            metrics["speed/flops_per_s"] = self.flops_per_step / step_s
            if self._peak:
                metrics["speed/mfu"] = self.flops_per_step / step_s / self._peak
        self.restart()
        return metrics
