"""Versions of a model beside the one that is served: their shares, who gets which, and a shadow."""

from typing import Annotated, Self

from pydantic import Field, PositiveInt, model_validator

from raystack.config.names import ModelReference
from raystack.config.section import ConflictError, NonNegativeFloat, Section

Share = Annotated[float, Field(ge=0, le=1)]


class Sticky(Section):
    """Key of a request. Requests with the same key are answered by the same version."""

    header: str | None = None
    """Name of a header, or of a metadata key over gRPC, e.g. `x-user-id`."""

    input: str | None = None
    """Name of an input; the key is the value of its first sample."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.header is None) == (self.input is None):
            raise ConflictError("needs one of both", "header", "input", remedy="set one of them")
        return self


class Shadow(Section):
    """A version that gets copies of requests. Clients never see its answers."""

    model: ModelReference
    """The version, as in `serving.model`."""

    share: Share = 1.0
    """Share of the requests that are copied."""

    max_ongoing: PositiveInt = 4
    """Maximum number of copies that a replica waits for; further ones are dropped and counted."""

    rtol: NonNegativeFloat = 1e-3
    """Relative tolerance: outputs differ where |a - b| > atol + rtol * |b|, b being the stable version's."""

    atol: NonNegativeFloat = 1e-5
    """Absolute tolerance."""


class Split(Section):
    """Versions of the model beside `model`, each with replicas of its own."""

    models: dict[ModelReference, Share] = Field(default={})
    """Other versions, as in `serving.model`, and their shares of the requests that name no version. The rest
    is answered by `model`.
    """

    sticky: Sticky | None = None
    """Have requests with the same key answered by the same version. Not set: each request is drawn anew.
    While a share grows no key moves back, if it is that of the only other version, or of the last of several;
    where the share of an earlier one changes, keys also move between those after it.
    """

    shadow: Shadow | None = None
    """A version that gets copies of requests, whose answers are compared."""

    replicas: PositiveInt | None = None
    """Number of replicas of each other version. Not set: as many as the model has."""

    @property
    def references(self) -> tuple[str, ...]:
        """Return all other versions, the shadow included, each once."""
        shadow = [self.shadow.model] if self.shadow is not None else []
        return tuple(dict.fromkeys([*self.models, *shadow]))

    @model_validator(mode="after")
    def _at_most_all(self) -> Self:
        if sum(self.models.values()) > 1 + 1e-9:
            raise ConflictError("should be at most 1 together", "models")
        return self
