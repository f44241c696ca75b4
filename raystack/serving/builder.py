"""Arguments as `serve run` and RayService give them -> the Serve application."""

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from raystack.config import load
from raystack.config.serving import Serving
from raystack.config.tracking import Tracking
from raystack.errors import ConfigError, Problem, nearest
from raystack.plan import plan_serving
from raystack.serving.served import Served, pin

if TYPE_CHECKING:
    from ray.serve import Application

_WITH_CONFIG = ("config", "overrides")
_PLACE = ("host", "port")
"""Where Serve listens is decided by whoever starts it, before an application is built."""


def build(args: dict[str, Any]) -> "Application":
    """The application to serve one model. Arguments are text, as from a command line, or typed, as from YAML:

    - `config`: path of a raystack config, and optionally `overrides`: a list, or text split as a shell
      does; or
    - `model`: `models:/name@alias`, `models:/name/version` or the folder or URL of a checkpoint; with it the
      other keys of the config's section `serving` (`name`, `replicas`, `batching.max_size` and so on) and
      `tracking_uri`.

    Raises ConfigError for an argument that is unknown or wrong, with the nearest name.
    """
    # Ray is imported when it is needed: the rest of this room is used without it.
    from raystack.serving.app import bind

    return bind(served_of(args))


def served_of(args: Mapping[str, Any]) -> Served:
    """What the arguments of `build` say is served."""
    if "config" in args:
        _refuse_unknown(args, _WITH_CONFIG, "beside config; put it into overrides")
        overrides = args.get("overrides", [])
        return Served.of(
            plan_serving(
                load(args["config"], shlex.split(overrides) if isinstance(overrides, str) else overrides)
            )
        )
    return _from_arguments(args)


def _from_arguments(args: Mapping[str, Any]) -> Served:
    fields = [name for name in Serving.model_fields if name not in (*_PLACE, "batching")]
    batching = [f"batching.{name}" for name in type(Serving().batching).model_fields]
    _refuse_unknown(args, (*fields, *batching, "tracking_uri", *_WITH_CONFIG), "here")
    values: dict[str, Any] = {}
    for key, value in args.items():
        if key == "tracking_uri":
            continue
        section, _, name = key.rpartition(".")
        (values.setdefault(section, {}) if section else values)[name] = value
    try:
        serving = Serving.model_validate(values, strict=False)
        uri = args.get("tracking_uri")
        tracking = Tracking(kind="off") if uri is None else Tracking(uri=uri)
    except ValidationError as error:
        raise ConfigError(
            [_problem(detail["loc"], detail["msg"], detail["input"]) for detail in error.errors()]
        ) from None
    if serving.model is None:
        raise ConfigError(
            Problem(
                "argument 'model'",
                rule="is required, or config",
                remedy="add model=models:/name@alias or config=path.yaml",
            )
        )
    return Served(
        name=serving.name or _default_name(serving.model),
        model=pin(serving.model, tracking, tracking.uri),
        tracking=tracking,
        tracking_uri=tracking.uri,
        replicas=serving.replicas,
        cpus=serving.cpus_per_replica,
        gpus=serving.gpus_per_replica,
        threads=max(1, int(serving.cpus_per_replica)),
        max_ongoing=serving.max_ongoing,
        max_queued=serving.max_queued,
        batching=serving.batching,
    )


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
