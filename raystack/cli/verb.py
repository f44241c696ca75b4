"""The record of a verb, and options that are the fields of a dataclass.

A file in `raystack/cli/verbs/` with a `VERB` is a verb of the command line. It imports nothing heavy at its
top: all verbs are imported to list them in `raystack --help`.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from raystack.cli.terminal import Terminal

Group = Literal["train and serve", "what runs elsewhere", "Kubernetes", "files"]
"""A heading of `raystack --help`, in this order."""

Run = Callable[[Any, "Terminal"], int | None]
"""Do what the options ask for, and return the exit status; None is 0. Errors are raised."""


@dataclass(frozen=True)
class Verb:
    """One verb of the command line, or one action of a verb."""

    name: str
    help: str
    """One line for the list of verbs, without a capital and a full stop."""
    options: type[Any]
    """A frozen dataclass, whose fields are made by `option` and `argument`."""
    run: Run
    group: Group
    usage: str | None = None
    """The usage after the program's name, where argparse's own would say less."""


@dataclass(frozen=True)
class Actions:
    """A verb with several actions, such as `raystack checkpoint ls`."""

    name: str
    help: str
    actions: Sequence[Verb]
    group: Group
    otherwise: Verb | None = None
    """What the words mean if the first one is no action, such as `raystack tune config.yaml`."""


def option(*flags: str, help: str, default: Any = False, **settings: Any) -> Any:
    """Return a dataclass field for an option.

    `settings` are argparse's; without any the option is a switch. `group` puts it under a heading of its own.
    Of the options with the same `exclusive` only one may be given.
    """
    if not settings.keys() - {"group", "exclusive"}:
        settings["action"] = "store_true"
    return field(default=default, metadata={"flags": flags, "help": help, **settings})


def argument(*, metavar: str, help: str, default: Any = MISSING, **settings: Any) -> Any:
    """Return a dataclass field for a positional argument."""
    metadata = {"flags": (), "metavar": metavar, "help": help, **settings}
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


def add_options(parser: argparse.ArgumentParser, options: type[Any], *, positional: bool = True) -> None:
    """Add the options of the dataclass to `parser`, and with `positional` its arguments."""
    groups: dict[str, Any] = {}
    for each in fields(options):
        if each.metadata and (positional or each.metadata["flags"]):
            _add(parser, each, groups)


def _add(parser: argparse.ArgumentParser, each: "Field[Any]", groups: dict[str, Any]) -> None:
    settings = dict(each.metadata)
    flags, heading, exclusive = (
        settings.pop("flags"),
        settings.pop("group", None),
        settings.pop("exclusive", None),
    )
    holder: Any = parser
    if heading is not None:
        holder = groups[heading] = groups.get(heading) or parser.add_argument_group(heading)
    if exclusive is not None:
        holder = groups[exclusive] = groups.get(exclusive) or holder.add_mutually_exclusive_group()
    many = settings.get("action") == "append" or settings.get("nargs") in ("*", "+")
    default = None if each.default is MISSING else list(each.default) if many else each.default
    if flags:
        holder.add_argument(*flags, dest=each.name, default=default, **settings)
    else:
        holder.add_argument(each.name, default=default, **settings)


def read_options(options: type[Any], values: Mapping[str, Any]) -> Any:
    """Return the dataclass made of what argparse has parsed. Lists become tuples."""
    known = {each.name for each in fields(options) if each.metadata}
    frozen = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
        if name in known
    }
    return options(**frozen)
