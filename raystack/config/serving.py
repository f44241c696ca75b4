"""The serving section: models, address, replicas, limits and batching."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    ModelWrapValidatorHandler,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from raystack.config.access import Tls, TokenName
from raystack.config.graph import Graph
from raystack.config.llm import WITHOUT_MEANING, Llm, changed
from raystack.config.names import Host, ModelReference
from raystack.config.secret import Secret
from raystack.config.section import ConflictError, NonNegativeFloat, NonNegativeInt, Pattern, Section
from raystack.config.sign import Verify
from raystack.config.split import Split
from raystack.config.telemetry import Drift, Payloads, Telemetry

Port = Annotated[int, Field(ge=1, le=65535)]

NAME = r"^[A-Za-z0-9][\w.-]{0,254}$"
"""Pattern of a model name that is safe in a URL."""
NAME_RULE = "should be letters, digits, '_', '.' and '-', and begin with a letter or digit"

PLACE = ("host", "port", "grpc_port", "tls")
"""Fields that say where Serve listens, which whoever starts it decides before there is an application."""


SEVERAL = ("models", "multiplexed")
"""Fields that name several models, of which one alone has none."""


def _whole_or_shared(gpus: float) -> float:
    if gpus > 1 and gpus != int(gpus):
        raise ValueError("should be a whole number of GPUs, or less than 1 to share one")
    return gpus


class Batching(Section):
    """Dynamic batching: one forward pass for requests that arrive together."""

    max_size: PositiveInt = 32
    """Maximum number of samples in one forward pass."""

    wait_ms: NonNegativeFloat = 1.0
    """Maximum milliseconds that a request waits for others. 0 never waits."""


class Deployment(Section):
    """Options of Ray Serve's deployment, under Serve's own names."""

    health_check_period_s: PositiveFloat = 2.0
    """Seconds between two health checks of a replica, in which a lost one is noticed. The model is asked for
    a prediction once in 10 seconds at most.
    """

    health_check_timeout_s: PositiveFloat = 30.0
    """Seconds after which a check counts as failed; after three in a row the replica is replaced. Set
    more for a model whose forward pass holds the GIL for long.
    """

    graceful_shutdown_timeout_s: PositiveFloat = 20.0
    """Seconds in which a replica that is replaced or removed may finish its requests."""

    max_surge_percent: Annotated[int, Field(ge=0, le=100)] = 25
    """Replicas beyond `replicas`, in percent of them and at least one, that may be started before those that
    they replace are stopped. 0 stops a replica first, which leaves a gap where there is only one.
    """


class Scaling(Section):
    """Replicas by the number of requests. The keys, apart from `target_ongoing`, are Ray Serve's own."""

    min_replicas: NonNegativeInt = 1
    """Minimum number of replicas. 0 frees all that they hold while there are no requests; the first request
    then waits until a replica has loaded the model.
    """

    max_replicas: PositiveInt
    """Maximum number of replicas."""

    initial_replicas: NonNegativeInt | None = None
    """Number of replicas to begin with. Not set: `min_replicas`, and 1 for 0, which shows that the model can
    be served.
    """

    target_ongoing: PositiveFloat = 8.0
    """Number of requests per replica, worked on and waiting, that replicas are added and removed for."""

    upscale_delay_s: NonNegativeFloat = 5.0
    """Seconds that more replicas have to be wanted before they are started."""

    downscale_delay_s: NonNegativeFloat = 60.0
    """Seconds that fewer replicas have to be wanted before some are stopped."""

    downscale_to_zero_delay_s: NonNegativeFloat | None = None
    """Seconds without a request before the last replica is stopped. Not set: `downscale_delay_s`."""

    look_back_period_s: PositiveFloat = 5.0
    """Seconds over which the number of requests is averaged."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ConflictError("should be at most max_replicas", "min_replicas", "max_replicas")
        initial = self.initial_replicas
        if initial is not None and not self.min_replicas <= initial <= self.max_replicas:
            keys = ("initial_replicas", "min_replicas", "max_replicas")
            raise ConflictError("should be from min_replicas to max_replicas", *keys)
        return self


class Loaded(Section):
    """What a model has wherever it is served."""

    model: ModelReference | None = None
    """`models:/name@alias` or `models:/name/version` from the registry, or a checkpoint's folder or URL."""

    verify: Verify | None = None
    """Whose signature the model must have to be loaded. Not set: it needs none."""

    max_ongoing: PositiveInt = 100
    """Maximum number of concurrent requests of one replica; others wait in its queue."""

    max_queued: PositiveInt = 1000
    """Maximum number of waiting requests; others are refused with status 429 and `Retry-After`."""

    timeout_s: PositiveFloat | None = None
    """Seconds in which a request has to be answered, from its last byte on; then it ends with status 504. Not
    set: no limit. A client may ask for less.
    """

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """bf16 and fp16 compute under autocast. Weights stay as stored, outputs are as the signature says."""

    compile: bool = False
    """Compile the task's `blocks`, or the whole model where it has none, with torch.compile. The first
    predictions take long: see `warm_up`.
    """

    warm_up: NonNegativeInt = 1
    """Number of predictions of `batching.max_size` samples of zeros before a version answers requests, after
    the one that checks it.
    """

    batching: Batching = Batching()
    """Batching of requests."""


class Served(Loaded):
    """What a model has that is served by replicas of its own."""

    graph: Graph | None = None
    """Models and functions that answer as one model, in place of `model`."""

    split: Split | None = None
    """Versions beside `model` that answer a share of its requests, or get copies of them."""

    replicas: PositiveInt = 1
    """Number of replicas of the model."""

    autoscaling: Scaling | None = None
    """Replicas as many as the requests need, in place of `replicas`. Not set: always `replicas`."""

    cpus_per_replica: NonNegativeFloat = 1.0
    """CPU cores that Ray reserves for each replica; also its number of compute threads, at least 1."""

    gpus_per_replica: Annotated[NonNegativeFloat, AfterValidator(_whole_or_shared)] = 0.0
    """GPUs of each replica; a fraction shares one."""

    health: Literal["prediction", "process"] = "prediction"
    """Check of a replica's health: a prediction for one sample of zeros, unless it has answered a request
    since the last check, or only that its process reacts.
    """

    deployment: Deployment = Deployment()
    """Health checks and shutdown of the replicas."""

    lineage: bool = False
    """Name the model, its version and the run that trained it in each answer: over HTTP in the headers
    `raystack-model`, `raystack-version` and `raystack-run`, over gRPC in the parameter `raystack_run`.
    """

    payloads: Payloads = Payloads()
    """Log of requests and answers."""

    drift: Drift = Drift()
    """Comparison of the served data with that of the training."""

    @property
    def threads(self) -> int:
        """Number of compute threads of each replica."""
        return max(1, int(self.cpus_per_replica))

    @model_validator(mode="after")
    def _model_or_graph(self) -> Self:
        if self.model is not None and self.graph is not None:
            raise ConflictError("exclude each other", "model", "graph", remedy="drop one of both")
        return self


ServedName = Annotated[str, Pattern(NAME, NAME_RULE)]
"""Name of a model in the protocol."""


class Multiplexed(Section):
    """Models that share replicas, which load one with its first request and then let go of another."""

    models: dict[ServedName, Loaded]
    """The models by the names that they have in the protocol. One takes from the section `serving` what it
    does not set itself.
    """

    max_loaded: PositiveInt = 4
    """Maximum number of models in the memory of one replica: the one that was used least recently goes."""

    replicas: PositiveInt = 1
    """Number of replicas, each of which serves all models."""

    cpus_per_replica: NonNegativeFloat = 1.0
    """CPU cores that Ray reserves for each replica; also its number of compute threads, at least 1."""

    gpus_per_replica: Annotated[NonNegativeFloat, AfterValidator(_whole_or_shared)] = 0.0
    """GPUs of each replica, which all its models share; a fraction shares one."""


class Serving(Served):
    """Serving of a model, or of several."""

    models: dict[ServedName, Served] = Field(default={})
    """Models by the names that they have in the protocol, each with replicas of its own. A model takes from
    this section what it does not set itself. Not set: the one model of `model`.
    """

    multiplexed: Multiplexed | None = None
    """Models that share replicas and are loaded as they are asked for, beside those of `models`."""

    name: Annotated[str, Pattern(NAME, NAME_RULE)] | None = None
    """Name of the model in the protocol, `/v2/models/<name>`. Not set: the registered name, else the
    experiment's.
    """

    host: Host = "127.0.0.1"
    """Address to listen on; `0.0.0.0` for every interface."""

    port: Port = 8000
    """HTTP port."""

    grpc_port: Port | None = None
    """gRPC port. Not set: no gRPC."""

    body_mb: PositiveFloat = 64.0
    """Megabytes (10^6 bytes) of the largest body of a request, unpacked if it is compressed; a larger one is
    refused with status 413.
    """

    body_s: PositiveFloat = 60.0
    """Seconds in which the body of a request has to arrive; then it is refused with status 408."""

    tokens: dict[TokenName, Secret] = Field(default={})
    """Bearer tokens of the clients that may ask, by names: `{app: secret:env:APP_TOKEN}`. Each is read where
    the replicas run, and a file again when it has changed. Not set: everybody may ask. Health is always told.
    """

    tls: Tls | None = None
    """Certificate for HTTPS, and for gRPC over TLS. Not set: connections are not encrypted."""

    telemetry: Telemetry = Telemetry()
    """Metrics and traces."""

    kind: Literal["model", "llm"] = "model"
    """`model` answers the Open Inference Protocol; `llm` is a language model that answers OpenAI's API."""

    llm: Llm = Llm()
    """What only a language model has, with kind `llm`."""

    @property
    def body_bytes(self) -> int:
        """Largest body of a request in bytes."""
        return int(self.body_mb * 1_000_000)

    @model_validator(mode="after")
    def _of_its_kind(self) -> Self:
        if self.kind == "model" and self.llm != Llm():
            raise ConflictError("is for kind llm alone", "llm", remedy="set serving.kind=llm")
        without = changed(self, WITHOUT_MEANING) if self.kind == "llm" else []
        if without:
            rule = "has no meaning for a language model, kind llm"
            raise ConflictError(rule, without[0], remedy=WITHOUT_MEANING[without[0]])
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _filled(cls, values: Any, check: ModelWrapValidatorHandler[Self]) -> Self:
        """Give each model what it does not set. Done here, so that a config that is written holds it."""
        section = check(values)
        if isinstance(values, cls) or not (section.models or section.multiplexed):
            return section
        common = section.model_dump(include=INHERITED, exclude_unset=True)
        filled: dict[str, Any] = {"models": {}}
        for name, model in section.models.items():
            own = model.model_dump(exclude_unset=True)
            if "replicas" in own:
                own.setdefault("autoscaling", None)
            filled["models"][name] = _over(common, own)
        if section.multiplexed is not None:
            common = {key: value for key, value in common.items() if key in Loaded.model_fields}
            shared = section.multiplexed.model_dump(exclude_unset=True)
            models = {name: _over(common, own) for name, own in shared["models"].items()}
            filled["multiplexed"] = {**shared, "models": models}
        return check({**values, **filled})


INHERITED = set(Served.model_fields) - {"model", "graph", "split"}
"""Fields that a model takes from the section if it does not set them."""


def _over(common: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Merge mappings of mappings."""
    merged = {**common, **own}
    for key in common.keys() & own.keys():
        if isinstance(common[key], dict) and isinstance(own[key], dict):
            merged[key] = _over(common[key], own[key])
    return merged
