"""Under which name a trained model is registered."""

import re
from typing import Annotated, Self

from pydantic import AfterValidator, model_validator

from raystack.config.section import ConflictError, Pattern, Section

_ALIAS = "should start with a letter and go on with letters, digits, '_' and '-'"


def _not_a_version(alias: str) -> str:
    """MLflow keeps `latest` and names like `v3` for itself."""
    if alias == "latest" or re.fullmatch(r"v\d+", alias):
        raise ValueError(
            "should not be 'latest' or look like a version, e.g. 'v3': MLflow keeps those for itself"
        )
    return alias


class Registry(Section):
    """Which model in the MLflow registry a finished run becomes a version of."""

    model: Annotated[str, Pattern(r"^[^/:@]+$", "should be a name without '/', ':' and '@'")] | None = None
    """Name of the registered model. Left out: nothing is registered."""

    alias: Annotated[str, Pattern(r"^[A-Za-z][\w-]*$", _ALIAS), AfterValidator(_not_a_version)] | None = None
    """Alias to set on the new version, e.g. `champion`; `models:/name@champion` then points to it."""

    @model_validator(mode="after")
    def _alias_needs_model(self) -> Self:
        if self.alias is not None and self.model is None:
            raise ConflictError(
                "an alias needs a model that it is set on", "alias", remedy="add registry.model"
            )
        return self
