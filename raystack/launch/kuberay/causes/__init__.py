"""Why something does not run. In: an Observed and the time. Out: the first cause that matches, with its remedy, or None.

Pure functions. What refuses a thing for good comes before what holds it, that before what its pods lack, and that before guesses.
"""

from raystack.launch.kuberay.causes.ending import ending
from raystack.launch.kuberay.causes.held import held, invalid, queued, suspended
from raystack.launch.kuberay.causes.missing import missing
from raystack.launch.kuberay.causes.pod import pods
from raystack.launch.kuberay.causes.progress import head_lost, progress
from raystack.launch.kuberay.causes.service import applications
from raystack.launch.kuberay.observed import Observed
from raystack.launch.status import Diagnosis

__all__ = ["CAUSES", "find", "held", "invalid"]

CAUSES = (invalid, ending, queued, suspended, missing, pods, head_lost, applications, progress)


def find(observed: Observed, now: float) -> Diagnosis | None:
    """The first cause that matches."""
    return next((found for cause in CAUSES if (found := cause(observed, now)) is not None), None)
