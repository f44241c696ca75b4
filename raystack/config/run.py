"""RunConfig: the whole config as one typed and frozen value."""

from raystack.config.automation import Automation
from raystack.config.budget import RunBudget
from raystack.config.experiment import Experiment
from raystack.config.predict import Predict
from raystack.config.prices import Prices
from raystack.config.registry import Registry
from raystack.config.resources import Resources
from raystack.config.rollout import Rollout
from raystack.config.section import Section
from raystack.config.serving import Serving
from raystack.config.target import Local, Target
from raystack.config.task import Task
from raystack.config.tracking import Tracking
from raystack.config.training import Training
from raystack.config.tuning import Tuning


class RunConfig(Section):
    """One experiment from data to served model. Sections that are not set take their defaults."""

    experiment: Experiment
    """Name, seed and storage of the experiment."""

    task: Task
    """The user's code."""

    training: Training
    """Training."""

    resources: Resources = Resources()
    """Workers and their resources."""

    tuning: Tuning | None = None
    """Search over the config, by `raystack tune`; training ignores it."""

    tracking: Tracking = Tracking()
    """Recording in MLflow."""

    registry: Registry = Registry()
    """Registration of the trained model."""

    serving: Serving = Serving()
    """Serving of the model."""

    predict: Predict = Predict()
    """Offline prediction with the model."""

    rollout: Rollout | None = None
    """Versions that change step by step, by `raystack rollout`; serving ignores it."""

    automation: Automation | None = None
    """Training again without a hand, by `raystack automate`."""

    budget: RunBudget = RunBudget()
    """Limits of what a run may use."""

    prices: Prices = Prices()
    """Prices of machines."""

    target: Target = Local()
    """Target on which the plan runs."""
