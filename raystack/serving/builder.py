"""Arguments as `serve run` and RayService give them -> the Serve application."""

import shlex
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from raystack.config import load
from raystack.config.fields import Fields
from raystack.config.section import Section
from raystack.config.serving import PLACE, Multiplexed, Serving
from raystack.config.tracking import Tracking
from raystack.errors import ConfigError, Problem, nearest
from raystack.plan import plan_serving
from raystack.serving.pin import pinned

if TYPE_CHECKING:
    from ray.serve import Application

Part = TypeVar("Part", bound=Section)

_WITH_CONFIG = ("config", "overrides")


def build(args: dict[str, Any]) -> "Application":
    """The application to serve one model, or those that share replicas. Arguments are text, as from a command
    line, or typed, as from YAML:

    - `config`: path of a raystack config, and optionally `overrides`: a list, or text split as a shell
      does; or
    - the keys of the config's section `serving`: `model` (`models:/name@alias`, `models:/name/version` or the
      folder or URL of a checkpoint), `name`, `replicas`, `batching.max_size` and so on; and those of
      `tracking`, as `tracking.uri`. With a `name`, the model may be left to the deployment's `user_config`,
      which has the keys of `serving` that Serve changes in place.

    Raises ConfigError for an argument that is unknown or wrong, with the nearest name, for several models
    that have replicas of their own, and for a model that the registry does not have.
    """
    # Ray is imported when it is needed: the rest of this room is used without it.
    from raystack.serving.app import bind

    serving, tracking = sections(args)
    if serving.models:
        rule = "are applications of their own, and this builds one"
        remedy = "use `raystack serve`, or name one as the model"
        raise ConfigError(Problem("serving.models", rule=rule, got=", ".join(serving.models), remedy=remedy))
    if serving.multiplexed is not None:
        from raystack.serving.several.app import bind_gateway

        return bind_gateway(pinned(serving, tracking), tracking)
    named = serving.model is not None or serving.graph is not None
    return bind(pinned(serving, tracking) if named else serving, tracking)


def build_server(args: dict[str, Any]) -> "Application":
    """The application that answers for a server of several models. Its `user_config` names them.

    Arguments are `cpus_per_replica` and `gpus_per_replica` of the models that share its replicas, and the
    keys of `tracking`. A RayService has it beside an application of `build` for each other model.
    """
    from raystack.serving.several.app import bind_gateway

    nested = {"models": {}, **_nested(args)}
    tracking = _validated(Tracking, nested.pop("tracking", {"kind": "off"}), ("tracking",))
    shared = _validated(Multiplexed, nested, ())
    return bind_gateway(Serving(multiplexed=shared), tracking)


def sections(args: Mapping[str, Any]) -> tuple[Serving, Tracking]:
    """The sections of a ServePlan, out of the arguments of `build`; an alias is not followed yet."""
    if "config" in args:
        _refuse_unknown(args, _WITH_CONFIG, "beside config; put it into overrides")
        overrides = args.get("overrides", [])
        asked = shlex.split(overrides) if isinstance(overrides, str) else overrides
        plan = plan_serving(load(args["config"], asked))
        if plan.serving.tls is not None:
            rule = "is not for a Serve that listens already"
            remedy = "leave it out, and set Serve's own http_options.ssl_certfile and ssl_keyfile"
            raise ConfigError(Problem("serving.tls", rule=rule, remedy=remedy))
        return plan.serving, plan.tracking
    _refuse_place(args)
    nested = _nested(args)
    asked_tracking = nested.pop("tracking", {"kind": "off"})
    serving, tracking = _validated(Serving, nested, ()), _validated(Tracking, asked_tracking, ("tracking",))
    if serving.name is not None or serving.models or serving.multiplexed:
        return serving, tracking
    if serving.graph is not None:
        raise ConfigError(Problem("argument 'name'", rule="is required with a graph", remedy="add name=..."))
    if serving.model is None:
        remedy = "add model=models:/name@alias or config=path.yaml"
        raise ConfigError(Problem("argument 'model'", rule="is required, or config", remedy=remedy))
    return serving.model_copy(update={"name": _default_name(serving.model)}), tracking


def _nested(args: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings in mappings, for dotted keys as a command line has them."""
    values: dict[str, Any] = {}
    for key, value in args.items():
        *above, last = key.split(".")
        place = values
        for name in above:
            place = place.setdefault(name, {})
        place[last] = {**place.get(last, {}), **value} if isinstance(value, Mapping) else value
    return values


def _validated(section: type[Part], values: dict[str, Any], above: tuple[str, ...]) -> Part:
    try:
        return section.model_validate(values, strict=False)
    except ValidationError as error:
        raise ConfigError([_problem(section, above, each) for each in error.errors()]) from None


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


def _refuse_place(args: Mapping[str, Any]) -> None:
    known = [name for name in Serving.model_fields if name not in PLACE]
    _refuse_unknown({name: args[name] for name in PLACE if name in args}, known, "here")


def _refuse_unknown(args: Mapping[str, Any], known: Collection[str], where: str) -> None:
    found = [_unknown(name, name, known, where) for name in args if name not in known]
    if found:
        raise ConfigError(found)


def _unknown(key: str, name: str, known: Collection[str], where: str) -> Problem:
    close = nearest(name, known)
    remedy = f"did you mean '{close}'?" if close else f"there are: {', '.join(known)}"
    return Problem(f"argument '{key}'", rule=f"is not known {where}", remedy=remedy)


def _problem(section: type[Section], above: tuple[str, ...], detail: ErrorDetails) -> Problem:
    own = tuple(map(str, detail["loc"]))
    key = ".".join((*above, *own))
    if detail["type"] == "extra_forbidden":
        siblings = [name for name in Fields(section, {}).fields(own[:-1]) if name not in PLACE]
        return _unknown(key, own[-1], siblings, "here")
    rule = detail["msg"].removeprefix("Value error, ").replace("Input should", "should", 1)
    return Problem(f"argument '{key}'", rule=rule, got=repr(detail["input"]))
