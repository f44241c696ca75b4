"""What every section of the config is: a frozen, strict pydantic model that refuses unknown keys.

The string under each field is its documentation: `raystack schema` and docs/config.md are made of it.
"""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the config. Strict: a string is not a number and `true` is not 1."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
        validate_default=True,
        serialize_by_alias=True,
        allow_inf_nan=False,
    )
