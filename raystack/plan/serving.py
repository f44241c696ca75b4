"""RunConfig -> ServePlan: the models to serve, their names and their resources."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from raystack.config import RunConfig
from raystack.config.llm import WITHOUT_MEANING
from raystack.config.serving import NAME, PLACE, SEVERAL, Loaded, Served, Serving
from raystack.config.tracking import Tracking
from raystack.errors import ConfigError, PlanError, Problem
from raystack.plan.llm import check_devices
from raystack.plan.split import application, beside, split_problems
from raystack.plan.training import plan_tracking
from raystack.ray_internals import variables

GRPC_SERVICES = "raystack.serving.grpc.ingress:add_to_server"
"""What Serve calls for its gRPC servers."""

MIDDLEWARES = "raystack.serving.front:middlewares"
"""What Serve calls for its servers of HTTP."""

BUILT_IN = ("name", "cpus_per_replica", "gpus_per_replica")
"""Settings that a replica is started with."""

BY_SERVE = ("replicas", "autoscaling", "deployment")
"""Settings that Serve acts on, and no replica."""

OF_LLM = ("max_ongoing", "max_queued", "timeout_s", "body_mb", "body_s", "tokens")
"""Settings that a replica of a language model can take over while it runs."""

DEPLOYMENT = "model"
"""Name of the one deployment of an application."""

SERVER = "_server"
"""Name of the application that answers for a server of several models; no model can have it."""

GATEWAY_ONGOING = 10_000
"""Requests that the application of the server takes at a time; the models' own limits are below it."""

MODELS = "/v2/models/"
"""Path of a model, before its name."""

REPORT_S = 2.0
"""Seconds between two reports of a replica to Serve's autoscaler."""

RETRIES = 10
"""Times that HAProxy sends a request again whose replica is lost: to others, and at last to Serve's proxy,
which holds it back until there is a replica.
"""

BUFFER_BYTES = 256 * 1024
"""Size of a request that HAProxy can send again."""


@dataclass(frozen=True)
class ServePlan:
    """The plan of a deployment: the value that `--dry-run` prints and that is executed.

    It has two whole sections of the config, so that no field has to be copied on its way to the replicas.
    """

    serving: Serving
    """The section with its `model` and `name` decided; of a server of several models, those of each."""
    tracking: Tracking
    """The section with the `uri` of the registry decided; `off` for a checkpoint, which needs no MLflow."""
    config: RunConfig
    route: str = "/"
    """The path that the Serve application answers, and all below it."""

    @property
    def several(self) -> bool:
        """Whether each model has an application of its own, beside one that answers for the server."""
        return bool(self.serving.models or self.serving.multiplexed)

    @property
    def models(self) -> tuple["ServePlan", ...]:
        """A plan for each model that has replicas of its own; for a single one this plan itself."""
        if not self.several:
            return (self,)
        return tuple(
            replace(self, serving=alone(self.serving, name), route=f"{MODELS}{name}")
            for name in self.serving.models
        )

    @property
    def beside(self) -> dict[str, "ServePlan"]:
        """A plan for each version that is beside a model, by the name of its Serve application."""
        return {
            application(model.name, reference): replace(model, serving=beside(model.serving, reference))
            for model in self.models
            if model.serving.split is not None
            for reference in model.serving.split.references
        }

    @property
    def applications(self) -> tuple[str, ...]:
        """Names of the Serve applications."""
        models = (model.name for model in self.models)
        return (*self.beside, *models, *([SERVER] if self.several else []))

    @property
    def name(self) -> str:
        """The model's name in the protocol and of the Serve application; of several, the server's name."""
        assert self.serving.name is not None
        return self.serving.name

    @property
    def model(self) -> str:
        """`models:/name@alias`, `models:/name/version`, the folder or URL of a checkpoint, or what a graph is
        of.
        """
        if self.serving.graph is not None:
            steps = self.serving.graph.steps.items()
            return "graph of " + ", ".join(f"{name} ({step.what})" for name, step in steps)
        assert self.serving.model is not None
        return self.serving.model

    @property
    def url(self) -> str:
        """URL of the model, the server of several or a language model's API, as seen from its own machine."""
        path = "/v2" if self.several else f"{MODELS}{self.name}"
        if self.serving.kind == "llm":
            path = "/v1"
        scheme = "http" if self.serving.tls is None else "https"
        return f"{scheme}://{self._host}:{self.serving.port}{path}"

    @property
    def grpc(self) -> dict[str, Any] | None:
        """Serve's options for gRPC; None without it."""
        if self.serving.grpc_port is None:
            return None
        # The services bring their own reflection, which knows their messages.
        return {
            "port": self.serving.grpc_port,
            "grpc_servicer_functions": [GRPC_SERVICES],
            "enable_reflection": False,
        }

    @property
    def grpc_address(self) -> str | None:
        """Address for clients over gRPC, as seen from its own machine; None without gRPC."""
        port = self.serving.grpc_port
        return None if port is None else f"{self._host}:{port}"

    def arguments(self) -> dict[str, Any]:
        """Return the plan as arguments of `raystack.serving:build`, for a Serve that listens already."""
        # Without the login to MLflow: the pods of a service have it in MLflow's own variables.
        left_out = {*PLACE, *SEVERAL, *_of_the_other_kind(self.serving)}
        serving = self.serving.model_dump(mode="json", exclude=left_out, exclude_none=True)
        tracking = {"tracking": {"uri": self.tracking.uri}} if self.tracking.uri else {}
        return {"name": self.name, **serving, **tracking}

    def split(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the plan as arguments of `raystack.serving:build` and as options of the deployment.

        The options are what Serve changes in place, the model among them. An alias is no such thing, because
        each replica would follow it by itself: it stays among the arguments, and another one is built anew.
        """
        own = self.serving.deployment.model_dump(mode="json")
        settings = changeable(self.serving)
        given = {*settings, *BY_SERVE}
        constant = {key: value for key, value in self.arguments().items() if key not in given}
        graph = self.serving.graph
        if graph is not None and any("@" in model for model in graph.models.values()):
            constant["graph"] = settings.pop("graph")
        elif "@" in self.model and "model" in settings:
            constant["model"] = settings.pop("model")
        options = {
            "name": DEPLOYMENT,
            **replicas(self.serving),
            "max_ongoing_requests": serve_limit(self.serving),
            **own,
            "user_config": settings,
        }
        return constant, options

    @property
    def _host(self) -> str:
        # 0.0.0.0 is an address to listen on, and none to connect to.
        return "127.0.0.1" if self.serving.host == "0.0.0.0" else self.serving.host


def replicas(serving: Served) -> dict[str, Any]:
    """Return Serve's options for the number of replicas."""
    scaling = serving.autoscaling
    if scaling is None:
        return {"num_replicas": serving.replicas}
    given = scaling.model_dump(exclude={"target_ongoing"}, exclude_none=True)
    own = {
        "initial_replicas": initial_replicas(serving),
        "target_ongoing_requests": scaling.target_ongoing,
        "metrics_interval_s": min(REPORT_S, scaling.look_back_period_s / 2),
    }
    return {"autoscaling_config": {**given, **own}}


def initial_replicas(serving: Served) -> int:
    """Return the number of replicas to begin with."""
    scaling = serving.autoscaling
    if scaling is None:
        return serving.replicas
    return max(1, scaling.min_replicas) if scaling.initial_replicas is None else scaling.initial_replicas


def gateway(serving: Serving) -> dict[str, Any]:
    """Return Serve's options for the application that answers for a server of several models.

    What it has to know is its `user_config`: the models with replicas of their own and their versions, and
    the settings of those that share its replicas.
    """
    shared = serving.multiplexed
    own: dict[str, Any] = {
        "models": {name: _version(model.model or "") for name, model in serving.models.items()},
        "shared": {},
        "max_loaded": 1,
        "common": changeable(serving),
    }
    resources = {"num_replicas": 1, "ray_actor_options": {"num_cpus": 0, "num_gpus": 0}}
    if shared is not None:
        models = {name: model.model_dump(mode="json") for name, model in shared.models.items()}
        own |= {"shared": models, "max_loaded": shared.max_loaded}
        asked = {"num_cpus": shared.cpus_per_replica, "num_gpus": shared.gpus_per_replica}
        resources = {"num_replicas": shared.replicas, "ray_actor_options": asked}
    return {
        "name": DEPLOYMENT,
        **resources,
        "max_ongoing_requests": GATEWAY_ONGOING,
        **serving.deployment.model_dump(mode="json"),
        "user_config": own,
    }


def _version(model: str) -> str:
    registered, _, version = model.rpartition("/")
    return version if registered.startswith("models:/") else ""


def all_models(serving: Serving) -> dict[str, Loaded]:
    """Return the models of a server of several, by their names; none for the server of one."""
    shared = serving.multiplexed.models if serving.multiplexed is not None else {}
    return {**serving.models, **shared}


def alone(serving: Serving, name: str) -> Serving:
    """Return the section of one of several models, as if it was the only one."""
    own = {key: getattr(serving.models[name], key) for key in Served.model_fields}
    return serving.model_copy(update={**own, "name": name, "models": {}, "multiplexed": None})


def serve_limit(serving: Serving) -> int:
    """Return Serve's own limit of requests, above the server's.

    The server refuses with the protocol's error where Serve would with plain text.
    """
    return serving.max_ongoing + serving.max_queued + 1


def changeable(serving: Serving) -> dict[str, Any]:
    """Return the settings that a replica can take over while it runs, as JSON has them."""
    if serving.kind == "llm":
        return serving.model_dump(mode="json", include=set(OF_LLM))
    return serving.model_dump(mode="json", exclude={*BUILT_IN, *BY_SERVE, *PLACE, *SEVERAL, "kind", "llm"})


def _of_the_other_kind(serving: Serving) -> tuple[str, ...]:
    return tuple(WITHOUT_MEANING) if serving.kind == "llm" else ("kind", "llm")


def environment(serving: Serving) -> dict[str, str]:
    """Return the environment of Serve's processes: HAProxy leads requests straight to the replicas."""
    return {
        variables.SERVE_HAPROXY: "1",
        variables.SERVE_THROUGHPUT: "1",
        variables.SERVE_MIDDLEWARE: MIDDLEWARES,
        # Seconds before a replica taken out of HAProxy's list stops. Serve's 30 suit cloud load balancers.
        variables.SERVE_DRAINING: "1",
        # A machine that is busy takes longer than Serve's 5.
        variables.SERVE_PROXY_READY: "30",
        variables.SERVE_HAPROXY_METRICS: "0",
        # A prediction changes nothing, so it may be computed twice.
        variables.SERVE_HAPROXY_RETRY_ON: "conn-failure empty-response",
        variables.SERVE_HAPROXY_RETRIES: str(RETRIES),
        variables.SERVE_HAPROXY_BUFFER: str(BUFFER_BYTES),
        variables.SERVE_GRPC_MESSAGE: str(serving.body_bytes),
    }


def plan_serving(config: RunConfig) -> ServePlan:
    """Decide on a deployment. Raises PlanError if there is nothing to serve, ConfigError for models that
    exclude each other.
    """
    serving = config.serving
    if serving.grpc_port == serving.port:
        rule, got = "has to be another port than serving.port", str(serving.port)
        raise PlanError(Problem("serving.grpc_port", rule=rule, got=got))
    if serving.kind == "llm":
        check_devices(serving)
    several = all_models(serving)
    found = [*(_several_problems(serving) if several else ()), *split_problems(serving)]
    if found:
        raise ConfigError(found)
    if not (several or serving.model or serving.graph or _registered(config)):
        remedy = "set serving.model=models:/name@alias, or to a checkpoint's folder"
        raise PlanError(Problem("serving.model", rule="there is no model to serve", remedy=remedy))
    model = None if several or serving.graph else serving.model or _registered(config)
    references = [reference for each in several.values() for reference in _references(each)]
    if not several:
        references = [*_references(serving), *([model] if model else [])]
    return ServePlan(
        serving=serving.model_copy(update={"model": model, "name": _name(config)}),
        tracking=_tracking(config, references),
        config=config,
    )


def _references(served: Loaded) -> list[str]:
    if not isinstance(served, Served):
        return [served.model] if served.model else []
    split = served.split.references if served.split is not None else ()
    return [
        *([served.model] if served.model else served.graph.models.values() if served.graph else []),
        *split,
    ]


def _registered(config: RunConfig) -> str | None:
    registry = config.registry
    return f"models:/{registry.model}@{registry.alias}" if registry.model and registry.alias else None


def _several_problems(serving: Serving) -> Iterator[Problem]:
    """Yield what is wrong with a server of several models."""
    if serving.model is not None:
        rule = "is the one model of a server, and several are named"
        remedy = "move it to serving.models, or drop one of both"
        yield Problem("serving.model", rule=rule, got=serving.model, remedy=remedy)
    if serving.graph is not None:
        rule, remedy = "is the one model of a server, and several are named", "move it to serving.models"
        yield Problem("serving.graph", rule=rule, remedy=remedy)
    shared = serving.multiplexed.models if serving.multiplexed is not None else {}
    for name in serving.models.keys() & shared.keys():
        rule = "is the name of a model of serving.models, too"
        yield Problem(f"serving.multiplexed.models.{name}", rule=rule, remedy="rename one of both")
    for section, models in (("models", serving.models), ("multiplexed.models", shared)):
        for name, own in models.items():
            if not own.model and not (isinstance(own, Served) and own.graph):
                rule = "there is no model to serve"
                remedy = "set it to models:/name@alias or a checkpoint's folder"
                yield Problem(f"serving.{section}.{name}.model", rule=rule, remedy=remedy)


def _name(config: RunConfig) -> str:
    """Return the name in the protocol; raise PlanError if it cannot be part of a URL."""
    # MLflow allows more characters in the name of a registered model than a URL does.
    name = config.serving.name or config.registry.model or config.experiment.name
    if not re.fullmatch(NAME, name):
        rule = "is left out, and the registered name cannot stand in a URL"
        raise PlanError(
            Problem(
                "serving.name",
                rule=rule,
                got=name,
                remedy="set serving.name to letters, digits, '_', '.' and '-'",
            )
        )
    return name


def _tracking(config: RunConfig, models: Sequence[str]) -> Tracking:
    registered = next((model for model in models if model.startswith("models:/")), None)
    if registered is None:
        return Tracking(kind="off")
    if config.tracking.kind == "off":
        rule = "a model from the registry needs MLflow, and tracking is off"
        raise PlanError(
            Problem(
                "serving.model",
                rule=rule,
                got=registered,
                remedy="use tracking=local, or set serving.model to a checkpoint's folder",
            )
        )
    return config.tracking.model_copy(update={"uri": plan_tracking(config)[0]})
