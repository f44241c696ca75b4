"""The registry section: name and alias of the trained model."""

from typing import Self

from pydantic import model_validator

from raystack.config.gates import Gates
from raystack.config.names import Alias, ModelName
from raystack.config.section import ConflictError, Section
from raystack.config.sign import Sign


class Registry(Section):
    """Registration of a finished run as a model version in MLflow."""

    model: ModelName | None = None
    """Name of the registered model. Not set: nothing is registered."""

    alias: Alias | None = None
    """Alias to set on the new version, e.g. `champion`; `models:/name@champion` then points to it."""

    gates: Gates | None = None
    """What a version has to pass before its alias moves to it."""

    sign: Sign | None = None
    """Who signs the files of a version. Not set: they are not signed."""

    @model_validator(mode="after")
    def _alias_needs_model(self) -> Self:
        if self.alias is not None and self.model is None:
            raise ConflictError(
                "an alias needs a model that it is set on", "alias", remedy="add registry.model"
            )
        return self
