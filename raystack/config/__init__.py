"""What was asked. In: a YAML file, config groups and overrides. Out: one RunConfig, typed, frozen and fully
checked.

Raises ConfigError with the file, line, dotted key, value and rule of each mistake. Imports no Ray, torch or
MLflow.
"""

from raystack.config.compose import dump, load
from raystack.config.mapping import from_mapping, loads, override
from raystack.config.run import RunConfig

__all__ = ["RunConfig", "dump", "from_mapping", "load", "loads", "override"]
