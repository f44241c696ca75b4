"""Arguments as `serve run` and RayService give them -> the Serve application."""

import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from raystack.config import load
from raystack.config.section import Section
from raystack.config.serving import PLACE, Serving
from raystack.config.tracking import Tracking
from raystack.errors import ConfigError, Problem, nearest
from raystack.plan import plan_serving
from raystack.serving.pin import pinned

if TYPE_CHECKING:
    from ray.serve import Application

Part = TypeVar("Part", bound=Section)

_WITH_CONFIG = ("config", "overrides")


def build(args: dict[str, Any]) -> "Application":
    """The application to serve one model. Arguments are text, as from a command line, or typed, as from YAML:

    - `config`: path of a raystack config, and optionally `overrides`: a list, or text split as a shell
      does; or
    - the keys of the config's section `serving`: `model` (`models:/name@alias`, `models:/name/version` or the
      folder or URL of a checkpoint), `name`, `replicas`, `batching.max_size` and so on; and those of
      `tracking`, as `tracking.uri`. With a `name`, the model may be left to the deployment's `user_config`,
      which has the keys of `serving` that Serve changes in place.

    Raises ConfigError for an argument that is unknown or wrong, with the nearest name, and for a model that
    the registry does not have.
    """
    # Ray is imported when it is needed: the rest of this room is used without it.
    from raystack.serving.app import bind

    serving, tracking = sections(args)
    return bind(pinned(serving, tracking) if serving.model is not None else serving, tracking)


def sections(args: Mapping[str, Any]) -> tuple[Serving, Tracking]:
    """The sections of a ServePlan, out of the arguments of `build`; an alias is not followed yet."""
    if "config" in args:
        _refuse_unknown(args, _WITH_CONFIG, "beside config; put it into overrides")
        overrides = args.get("overrides", [])
        asked = shlex.split(overrides) if isinstance(overrides, str) else overrides
        plan = plan_serving(load(args["config"], asked))
        return plan.serving, plan.tracking
    flat = dict(_flat(args))
    known = [key for key in _keys(Serving) if key not in PLACE]
    _refuse_unknown(flat, (*known, *(f"tracking.{key}" for key in _keys(Tracking)), *_WITH_CONFIG), "here")
    nested = _nested(flat)
    asked_tracking = nested.pop("tracking", {"kind": "off"})
    serving, tracking = _validated(Serving, nested, ()), _validated(Tracking, asked_tracking, ("tracking",))
    if serving.name is not None:
        return serving, tracking
    if serving.model is None:
        remedy = "add model=models:/name@alias or config=path.yaml"
        raise ConfigError(Problem("argument 'model'", rule="is required, or config", remedy=remedy))
    return serving.model_copy(update={"name": _default_name(serving.model)}), tracking


def _keys(section: type[Section]) -> Iterator[str]:
    """Dotted keys of a section."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from (f"{name}.{key}" for key in _keys(field.annotation))
        else:
            yield name


def _flat(node: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in flat.items():
        *above, last = key.split(".")
        place = values
        for name in above:
            place = place.setdefault(name, {})
        place[last] = value
    return values


def _validated(section: type[Part], values: dict[str, Any], above: tuple[str, ...]) -> Part:
    try:
        return section.model_validate(values, strict=False)
    except ValidationError as error:
        found = [_problem((*above, *each["loc"]), each["msg"], each["input"]) for each in error.errors()]
        raise ConfigError(found) from None


def _default_name(model: str) -> str:
    """The registered name; a folder has none that says what it is."""
    if not model.startswith("models:/"):
        raise ConfigError(
            Problem(
                "argument 'name'",
                rule="is required with a model that is not in the registry",
                got=model,
                remedy="add name=...",
            )
        )
    return model.removeprefix("models:/").partition("@")[0].partition("/")[0]


def _refuse_unknown(args: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    found = []
    for name in args:
        if name not in known:
            close = nearest(name, known)
            remedy = f"did you mean '{close}'?" if close else f"there are: {', '.join(known)}"
            found.append(Problem(f"argument '{name}'", rule=f"is not known {where}", remedy=remedy))
    if found:
        raise ConfigError(found)


def _problem(key: tuple[int | str, ...], message: str, value: Any) -> Problem:
    rule = message.removeprefix("Value error, ").replace("Input should", "should", 1)
    return Problem(f"argument '{'.'.join(map(str, key))}'", rule=rule, got=repr(value))
