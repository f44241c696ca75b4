"""What every section of the config is: a frozen, strict pydantic model that refuses unknown keys.

The string under each field is its documentation: `raystack schema` and docs/config.md are made of it. The
rules that pydantic cannot put into a user's words are here: a pattern that says what it wants, keys that
exclude each other, a value that must not be repeated in a message.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema


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
    """For a union by `kind`: a section that does not give it is of the default kind."""

    def filled_in(value: Any) -> Any:
        return {"kind": default, **value} if isinstance(value, dict) else value

    return BeforeValidator(filled_in)


class ConflictError(ValueError):
    """Keys of one section that do not go together. The error is led to the one that was set last."""

    def __init__(self, rule: str, *keys: str, remedy: str | None = None) -> None:
        super().__init__(rule)
        self.keys, self.remedy = keys, remedy


class UnshownError(ValueError):
    """A rule broken by a value that may hold a secret: the message leaves the value out."""


@dataclass(frozen=True)
class Pattern:
    """In `Annotated[str, Pattern(...)]`: what the whole string has to match, and the same in words."""

    regex: str
    rule: str
    """Follows the key in an error: "should be ..."."""
    secret: bool = False
    """Leave the value out of errors."""

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
