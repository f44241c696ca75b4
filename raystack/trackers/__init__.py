"""Records of a run beside MLflow's: TensorBoard and Weights & Biases, and nothing else imports these.

In: a plan, and the events of its run. Out: the records, with links to them and notes on what went wrong.

Only the driver has trackers. Each is called in a thread of its own, which imports its library when the first
step is due, so no run waits for one; one that fails is a warning and a note, and the run goes on.
"""

from raystack.trackers.opening import open_trackers, require_libraries
from raystack.trackers.recorder import Recorder
from raystack.trackers.tracker import Status, Tracker

__all__ = ["Recorder", "Status", "Tracker", "open_trackers", "require_libraries"]
