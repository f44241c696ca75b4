"""Base of all config sections: a frozen, strict pydantic model that rejects unknown keys.

The docstring under each field is its documentation in `raystack schema` and docs/config.md. This module also
defines rules whose errors pydantic cannot word for users: patterns with a description, keys that exclude each
other, and values that must not appear in messages.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """A part of the config. Strict: a string is not a number and `true` is not 1."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        validate_default=True,
        serialize_by_alias=True,
        allow_inf_nan=False,
    )


def kind_or(default: str) -> BeforeValidator:
    """Return a validator for a union by `kind` that fills in the default kind."""

    def filled_in(value: Any) -> Any:
        return {"kind": default, **value} if isinstance(value, dict) else value

    return BeforeValidator(filled_in)


class ConflictError(ValueError):
    """Conflicting keys of one section. The error points to the key that was set last."""

    def __init__(self, rule: str, *keys: str, remedy: str | None = None) -> None:
        super().__init__(rule)
        self.keys, self.remedy = keys, remedy


class UnshownError(ValueError):
    """Error of a value that may hold a secret, so that messages omit it."""


@dataclass(frozen=True)
class Pattern:
    """Pattern for the whole string in `Annotated[str, Pattern(...)]`, with a description of it."""

    regex: str
    rule: str
    """Text after the key in an error: "should be ..."."""
    secret: bool = False
    """Omit the value from errors."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {**handler(schema), "pattern": self.regex}

    def _check(self, value: Any) -> Any:
        if isinstance(value, str) and re.fullmatch(self.regex, value):
            return value
        if self.secret:
            raise UnshownError(self.rule)
        if isinstance(value, str):
            raise ValueError(self.rule)
        return value


Text = Annotated[str, Pattern(r"^\s*[^\s\x00-\x1f][\s\S]*$", "should not be empty")]
"""Text that names something."""
