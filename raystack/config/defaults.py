"""What a config has where it does not say: for callers that have none."""

from omegaconf import OmegaConf

from raystack.config.compose import BASE
from raystack.config.experiment import Experiment


def default_storage() -> str:
    """`experiment.storage`: RAYSTACK_STORAGE, or a folder at home."""
    named = OmegaConf.select(OmegaConf.load(BASE), "experiment.storage")
    return Experiment(name="default", **({"storage": named} if named else {})).storage
