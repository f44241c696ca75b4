"""The task section: the Task's Python name, its arguments and the folder of its code."""

from typing import Annotated, Any

from pydantic import Field

from raystack.config.section import Pattern, Section, Text

_ENTRY = "should be module:name, e.g. task:Digits"


class Task(Section):
    """The user's code: model, data, loss, predict."""

    entry: Annotated[str, Pattern(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", _ENTRY)]
    """`module:name` of a class or function that returns a Task. A module beside the config file
    takes precedence over an installed one.
    """

    args: dict[str, Any] = Field(default={})
    """Keyword arguments of the entry. A string `secret:env:NAME` or `secret:file:/path` is replaced by the
    secret on the worker that builds the task, and nowhere else.
    """

    folder: Text | None = None
    """Folder of the module, relative to the config file's. Set to that folder if the module lies there, and
    then copied to the cluster and into every checkpoint. None for an installed package.
    """
