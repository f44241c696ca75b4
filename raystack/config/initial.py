"""Weights that a run begins with."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from raystack.config.optimizer import Globs
from raystack.config.section import Section, Text


class InitFrom(Section):
    """Weights that a run begins with, in place of those of the task's model. The optimizer is a new one."""

    source: Text
    """`models:/name@alias` or `models:/name/version` of the registry; or the folder or URL of a checkpoint,
    of a run (the checkpoint that it ended with, else its newest undamaged one), or of a model.
    """

    match: Globs | None = None
    """Patterns for names of parameters and buffers, in which `*` stands for any characters. Only those that
    match are loaded. Not set: all of them.
    """

    rename: dict[Text, str] = Field(default={})
    """Beginnings of names in the source, each with what it is in the model, such as `encoder.: backbone.`.
    The first that fits counts.
    """

    strict: bool = True
    """Everything that is to be loaded has to be in the model and in the source, with the same shape. False:
    what fits is loaded, and the rest keeps the values of the task's model.
    """

    @property
    def whole(self) -> bool:
        """Whether all weights of the model are replaced."""
        return self.strict and self.match is None


def _named(value: Any) -> Any:
    return {"source": value} if isinstance(value, str) else value


Initial = Annotated[InitFrom | None, BeforeValidator(_named, json_schema_input_type=str | InitFrom | None)]
"""The source alone, or with more."""
