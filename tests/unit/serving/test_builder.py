"""Arguments of `serve run` and RayService become an application, or one error that names the argument."""

from pathlib import Path
from typing import Any

import pytest

from raystack.config import load
from raystack.config.serving import PLACE, SEVERAL, Batching, Serving
from raystack.config.tracking import Tracking
from raystack.errors import ConfigError
from raystack.plan import plan_serving
from raystack.registry.recording import flatten
from raystack.serving.builder import build, sections

CONFIG = Path(__file__).parents[2] / "tiny" / "config.yaml"
OTHER_THAN_DEFAULT = [
    "serving.lineage=true",
    "serving.verify={key: 'secret:file:/keys/model.pub'}",
    "serving.split={sticky: {header: x-user}, replicas: 3}",
    "serving={model: 'models:/digits/3', name: three, replicas: 2, max_ongoing: 7, max_queued: 8}",
    "serving={cpus_per_replica: 2.5, gpus_per_replica: 0.5, batching: {max_size: 9, wait_ms: 0.5}}",
    "serving={body_mb: 5, body_s: 6, timeout_s: 7, precision: bf16}",
    "serving={compile: true, warm_up: 3, health: process}",
    "serving.autoscaling={min_replicas: 0, max_replicas: 3, initial_replicas: 2, target_ongoing: 4}",
    "serving.autoscaling={upscale_delay_s: 1, downscale_delay_s: 2, downscale_to_zero_delay_s: 3}",
    "serving.autoscaling={look_back_period_s: 6}",
    "serving.deployment={health_check_period_s: 4, health_check_timeout_s: 5}",
    "serving.deployment={graceful_shutdown_timeout_s: 6, max_surge_percent: 50}",
    "serving.tokens={us: 'secret:env:US'}",
    "serving.telemetry={metrics: false, otlp: 'http://traces:4318', trace_ratio: 0.5}",
    "serving.payloads={to: 'http://sink:80', token: 'secret:env:TOKEN', mode: structured, log: request}",
    "serving.payloads={sample: 0.5, errors: false, exclude: [x], max_kb: 1, queue_mb: 2}",
    "serving.payloads={rotate_mb: 3, keep: 4}",
    "serving.drift={enabled: false, sample: 0.2, window_s: 5, min_samples: 6, threshold: 0.5, to: /drift}",
    "tracking={kind: mlflow, uri: 'http://mlflow:5000'}",
]


def test_tls_is_not_for_a_serve_that_listens_already(tmp_path: Path) -> None:
    tls = f"serving.tls={{certificate: {tmp_path}/a.pem, key: {tmp_path}/a.key}}"
    overrides = ["serving.model=models:/digits/3", "tracking=local", tls]
    with pytest.raises(ConfigError, match=r"serving\.tls: is not for a Serve that listens already"):
        sections({"config": str(CONFIG), "overrides": overrides})


def test_arguments_as_text() -> None:
    serving, tracking = sections(
        {
            "model": "models:/digits/3",
            "replicas": "2",
            "batching.max_size": "64",
            "tracking.uri": "http://mlflow:5000",
        }
    )
    assert serving == Serving(
        name="digits", model="models:/digits/3", replicas=2, batching=Batching(max_size=64)
    )
    assert tracking == Tracking(uri="http://mlflow:5000")


def test_models_with_replicas_of_their_own_are_no_single_application() -> None:
    with pytest.raises(ConfigError, match=r"serving.models: are applications .*\(got one, two\)"):
        build({"models": {"one": {"model": "/a"}, "two": {"model": "/b"}}})


def test_a_config_with_overrides() -> None:
    arguments = {"config": str(CONFIG), "overrides": "serving.model=/models/a serving.replicas=3"}
    serving, tracking = sections(arguments)
    assert (serving.name, serving.model, serving.replicas) == ("tiny", "/models/a", 3)
    assert tracking.kind == "off", "a folder needs no MLflow"
    overrides = ["serving.model=/models/a", "serving.replicas=3"]
    assert sections({"config": str(CONFIG), "overrides": overrides}) == (serving, tracking)


def test_a_plan_arrives_whole_as_arguments() -> None:
    """Every field of the section, one that is added tomorrow among them: nothing lists them."""
    plan = plan_serving(load(CONFIG, OTHER_THAN_DEFAULT))
    default = dict(flatten(Serving().model_dump()))
    given = dict(flatten(plan.serving.model_dump(exclude={*PLACE, *SEVERAL, "kind", "llm", "graph"})))
    unchanged = [key for key, value in given.items() if value == default.get(key)]
    assert not unchanged, "OTHER_THAN_DEFAULT sets every field"
    serving, tracking = sections(plan.arguments())
    assert serving == plan.serving
    assert tracking.uri == plan.tracking.uri == "http://mlflow:5000"


OF_A_LANGUAGE_MODEL = [
    "serving={kind: llm, model: 'models:/story/3', name: story, replicas: 2, gpus_per_replica: 2}",
    "serving={max_ongoing: 7, max_queued: 8, timeout_s: 9, body_mb: 5, body_s: 6}",
    "serving.tokens={us: 'secret:env:US'}",
    "serving.llm={dtype: bfloat16, max_model_len: 64, tensor_parallel_size: 1, kv_cache_gb: 0.5}",
    "serving.llm={chat_template: '{{ messages }}', adapters: {poet: 'models:/poet/1', s3: 's3://b/a'}}",
    "serving.llm.engine_kwargs={pipeline_parallel_size: 2, compilation_config: {level: 0}}",
    "tracking={kind: mlflow, uri: 'http://mlflow:5000'}",
]


def test_a_language_model_arrives_whole_as_arguments() -> None:
    plan = plan_serving(load(CONFIG, OF_A_LANGUAGE_MODEL))
    default = dict(flatten(Serving().llm.model_dump()))
    given = dict(flatten(plan.serving.llm.model_dump()))
    unchanged = [key for key, value in given.items() if value == default.get(key)]
    assert not unchanged, "OF_A_LANGUAGE_MODEL sets every field"
    assert sections(plan.arguments()) == (plan.serving, Tracking(uri="http://mlflow:5000"))


def test_a_service_of_a_language_model_has_its_limits_among_the_options() -> None:
    plan = plan_serving(load(CONFIG, OF_A_LANGUAGE_MODEL))
    arguments, options = plan.split()
    assert options["user_config"] == {
        "max_ongoing": 7,
        "max_queued": 8,
        "timeout_s": 9,
        "body_mb": 5,
        "body_s": 6,
        "tokens": {"us": "secret:env:US"},
    }
    assert options["num_replicas"] == 2
    serving, _ = sections(arguments)
    assert (serving.model, serving.llm, serving.kind) == (plan.model, plan.serving.llm, "llm")


@pytest.mark.parametrize("model", ["models:/digits/3", "models:/digits@champion"])
def test_a_service_has_what_changes_in_place_among_the_options(model: str) -> None:
    """Another version or limit leaves the arguments alike, of which others would replace all replicas."""
    plan = plan_serving(load(CONFIG, [*OTHER_THAN_DEFAULT, f"serving.model={model}"]))
    arguments, options = plan.split()
    serving, tracking = sections(arguments)
    pinned = "@" not in model
    assert (serving.model is None) is pinned
    settings = {**serving.model_dump(mode="json"), **options["user_config"]}
    own = plan.serving.model_dump(include={"replicas", "autoscaling"})
    settings |= {**own, "deployment": plan.serving.deployment.model_dump()}
    assert Serving.model_validate(settings, strict=False) == plan.serving
    assert tracking.uri == plan.tracking.uri
    changes = ["serving.model=models:/digits/4", "serving.replicas=5", "serving.max_queued=1"]
    other = plan_serving(load(CONFIG, [*OTHER_THAN_DEFAULT, *changes])).split()
    assert (other[0] == arguments) is pinned
    assert other[1] != options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"model": "models:/a/1", "replica": "2"},
            "argument 'replica': is not known here; did you mean 'replicas'?",
        ),
        ({"model": "models:/a/1", "port": "80"}, "argument 'port': is not known here"),
        ({"model": "models:/a/1", "grpc_port": "80"}, "argument 'grpc_port': is not known here"),
        (
            {"config": "a.yaml", "replicas": "2"},
            "argument 'replicas': is not known beside config; put it into overrides",
        ),
        ({"model": "models:/a/1", "tracking_uri": "x"}, "argument 'tracking_uri': is not known here"),
        ({"model": "models:/a/1", "tracking": {"kind": "of"}}, "argument 'tracking.kind': should be"),
        ({"model": "models:/a/1", "replicas": "two"}, "argument 'replicas': should be a valid integer"),
        (
            {"model": "models:/a/1", "batching.max_size": "0"},
            "argument 'batching.max_size': should be greater than 0",
        ),
        ({}, "argument 'model': is required, or config"),
        ({"model": "/models/a"}, "argument 'name': is required with a model that is not in the registry"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        sections(arguments)
    assert message in str(raised.value)
