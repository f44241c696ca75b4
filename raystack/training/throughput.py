"""Speed of a run: step time and its phases, samples and tokens per second, FLOP/s and MFU."""

import time

from raystack.training.world import World


class Throughput:
    """The timer of the loop."""

    # Phases are measured only in the steps that are reported, because that waits for the device.

    def __init__(self, world: World, peak: float | None) -> None:
        self.flops_per_step: float | None = None
        """Number of floating point operations of a step on this worker; None until they are counted."""
        self._world, self._peak = world, peak
        self.precise = False
        """True while the phases of a step are measured."""
        self._phases: dict[str, float] = {}
        self.restart()

    def restart(self) -> None:
        """Begin a new window, so that what happened until now, such as an evaluation, does not count."""
        self._steps = self._samples = self._tokens = 0
        self._window = time.perf_counter()

    def begin(self, *, precise: bool) -> None:
        """Begin a step, whose phases are measured if `precise`."""
        self.precise = precise
        self._phases = {}

    def add(self, phase: str, seconds: float) -> None:
        """Add the seconds of a phase; those of several micro batches in a step add up."""
        self._phases[phase] = self._phases.get(phase, 0.0) + seconds

    def end(self, samples: int, tokens: int) -> None:
        """End a step in which all workers together consumed `samples`, and this one `tokens`."""
        self._steps += 1
        self._samples += samples
        self._tokens += tokens

    def report(self) -> dict[str, float]:
        """Return the metrics of the window, in s, 1/s and FLOP/s, and begin a new one."""
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
