"""Which Task to run: a Python name, its arguments, and the folder its code is found in."""

from typing import Annotated, Any

from pydantic import Field

from raystack.config.section import Pattern, Section, Text

_ENTRY = "should be module:name, e.g. task:Digits"


class Task(Section):
    """The user's code: model, data, loss, predict."""

    entry: Annotated[str, Pattern(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", _ENTRY)]
    """`module:name` of a class or function that returns a Task. A module beside the config file wins over an
    installed one.
    """

    args: dict[str, Any] = Field(default={})
    """Keyword arguments for it. A string `secret:env:NAME` or `secret:file:/path` is replaced by the secret
    on the worker that builds the task, and nowhere else.
    """

    folder: Text | None = None
    """Folder that holds the module. Filled in with the config file's own folder when the module lies there;
    it then travels to the cluster and into every checkpoint. A relative path starts there too. None for an
    installed package.
    """
