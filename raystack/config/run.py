"""RunConfig: everything that was asked, in one typed and frozen value."""

from raystack.config.experiment import Experiment
from raystack.config.registry import Registry
from raystack.config.resources import Resources
from raystack.config.section import Section
from raystack.config.serving import Serving
from raystack.config.target import Local, Target
from raystack.config.task import Task
from raystack.config.tracking import Tracking
from raystack.config.training import Training


class RunConfig(Section):
    """One experiment from data to served model. Sections that are left out take their defaults."""

    experiment: Experiment
    """What is being tried, and where its runs are kept."""

    task: Task
    """The user's code."""

    training: Training
    """How to train."""

    resources: Resources = Resources()
    """Workers and what each of them gets."""

    tracking: Tracking = Tracking()
    """Where the run is recorded."""

    registry: Registry = Registry()
    """Under which name the trained model is registered."""

    serving: Serving = Serving()
    """What to serve, and how."""

    target: Target = Local()
    """Where the plan runs."""
