"""A price table for commands without a config. In: the name of a choice, or a file. Out: Prices."""

from pathlib import Path

import yaml
from pydantic import ValidationError

from raystack.config.choices import Groups
from raystack.config.prices import Prices
from raystack.errors import ConfigError, Problem, nearest


def load_prices(name: str) -> Prices:
    """Return the prices of a choice of the group `prices`, or of a YAML file. Raises ConfigError."""
    groups = Groups()
    file = groups.file(f"prices/{name}") or Path(name)
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        known = groups.choices("prices")
        close = nearest(name, known)
        rule = f"should be one of {', '.join(known)}, or a YAML file"
        remedy = f"did you mean {close}?" if close else str(error).splitlines()[0]
        raise ConfigError(Problem("--prices", rule=rule, got=name, remedy=remedy)) from None
    try:
        return Prices.model_validate(values.get("prices", values) if isinstance(values, dict) else values)
    except ValidationError as error:
        raise ConfigError(
            Problem(".".join(["prices", *map(str, each["loc"])]), rule=each["msg"], got=str(each["input"]))
            for each in error.errors()
        ) from None
