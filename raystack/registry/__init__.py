"""MLflow, and nothing else imports it.

In: a plan, and what happens in its run and those nested in it; or the URI of a model. Out: the run's record,
versions of registered models and their aliases; or the folder of the model's files.

The record is kept by the driver process alone and never makes it wait: commands are queued, sent by one
thread, spooled to disk while MLflow is away, and sent by a later run if need be. Nothing is lost and nothing
doubled. MLflow is imported by that thread or at the first `resolve`, because it takes one to two seconds.
"""

from raystack.registry.command import STATUS_TAG, Registered, Run, RunStatus, now_ms
from raystack.registry.files import cached
from raystack.registry.recording import Recording, flatten
from raystack.registry.resolve import find_files, pin, resolve
from raystack.registry.tracking import MlflowTracker, NoTracker, Tracker, open_tracker

__all__ = [
    "STATUS_TAG",
    "MlflowTracker",
    "NoTracker",
    "Recording",
    "Registered",
    "Run",
    "RunStatus",
    "Tracker",
    "cached",
    "find_files",
    "flatten",
    "now_ms",
    "open_tracker",
    "pin",
    "resolve",
]
