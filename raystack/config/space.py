"""One dimension of a search space: the domain of a path, and the condition under which it counts."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from raystack.config.section import ConflictError, Section, Text

DomainKind = Literal[
    "uniform", "loguniform", "quniform", "randint", "lograndint", "normal", "choice", "grid", "group"
]

Pair = Annotated[tuple[float, float], Field(strict=False)]
Triple = Annotated[tuple[float, float, float], Field(strict=False)]
IntPair = Annotated[tuple[int, int], Field(strict=False)]
Values = Annotated[tuple[Any, ...], Field(strict=False, min_length=1)]
Names = Annotated[tuple[Text, ...], Field(strict=False, min_length=1)]


class Domain(Section):
    """The values of one path: exactly one of the domains, and optionally `when`."""

    uniform: Pair | None = None
    """`[low, high]`: any number from low to high."""

    loguniform: Pair | None = None
    """`[low, high]`: any number from low to high, uniform in its logarithm."""

    quniform: Triple | None = None
    """`[low, high, step]`: low, low + step, and so on up to high. Whole numbers if all three are."""

    randint: IntPair | None = None
    """`[low, high]`: a whole number from low to high - 1, as `ray.tune.randint`."""

    lograndint: IntPair | None = None
    """`[low, high]`: as `randint`, uniform in its logarithm."""

    normal: Annotated[tuple[float, PositiveFloat], Field(strict=False)] | None = None
    """`[mean, sd]`: normally distributed."""

    choice: Values | None = None
    """One of these values: numbers, words, lists or mappings."""

    grid: Values | None = None
    """Each of these values, in every combination with the other grids."""

    group: Names | dict[Text, dict[str, Any]] | None = None
    """One of these choices of a config group; the key is then the group's name, e.g. `strategy`. In a
    resolved config each name has the section that it stands for.
    """

    when: dict[Text, Any] = Field(default={})
    """Other paths of the space, each with the value or list of values for which this one counts. Otherwise
    the config keeps its own value.
    """

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [name for name in KINDS if getattr(self, name) is not None]
        if len(given) != 1:
            rule = f"should have exactly one domain: {', '.join(KINDS[:-1])} or {KINDS[-1]}"
            raise ConflictError(rule, *given)
        self._bounds(given[0])
        return self

    def _bounds(self, kind: DomainKind) -> None:
        values: Any = getattr(self, kind)
        if kind in ("uniform", "loguniform", "quniform", "randint", "lograndint") and values[0] >= values[1]:
            raise ConflictError("should have its lower bound first", kind, remedy=f"{kind}: [low, high]")
        if kind in ("loguniform", "lograndint") and values[0] <= 0:
            raise ConflictError("should have bounds above 0: it is uniform in the logarithm", kind)
        if kind == "quniform" and not 0 < values[2] <= values[1] - values[0]:
            raise ConflictError("should have a step above 0 that fits between the bounds", kind)
        if kind in ("choice", "grid") and any(
            isinstance(value, float) and not math.isfinite(value) for value in values
        ):
            raise ConflictError("should hold finite numbers", kind)

    @property
    def kind(self) -> DomainKind:
        """The domain that is given."""
        return next(name for name in KINDS if getattr(self, name) is not None)


KINDS: tuple[DomainKind, ...] = (
    "uniform",
    "loguniform",
    "quniform",
    "randint",
    "lograndint",
    "normal",
    "choice",
    "grid",
    "group",
)
