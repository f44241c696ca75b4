"""What lint says of serveConfigV2 and of runtime environments is what Ray does with them."""

from typing import Any

import pytest
import yaml
from objects import good, merged
from ray.runtime_env import RuntimeEnv
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import ServeDeploySchema

from raystack.kuberay.lint import documents, lint
from raystack.kuberay.lint.serve_config import ACTOR, APPLICATION, AUTOSCALING, CONFIG, DEPLOYMENT, HTTP

APP = {"name": "a", "import_path": "digits.app:app", "route_prefix": "/a"}


def config(application: Any, **further: Any) -> dict[str, Any]:
    return {"applications": [{**APP, **application}], **further}


def deployment(**fields: Any) -> dict[str, Any]:
    return config({"deployments": [{"name": "A", **fields}]})


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"import_path": "digits:app"}, "applications"),
    ({"applications": None}, "applications"),
    ({"applications": {"a": APP}}, "applications"),
    ({"applications": [{"name": "a"}]}, "applications[0].import_path"),
    ({"applications": [{"importpath": "a:app"}]}, "applications[0].importpath"),
    ({"applications": [APP, {**APP, "route_prefix": "/b"}]}, "applications[1].name"),
    ({"applications": [APP, {**APP, "name": "b"}]}, "applications[1].route_prefix"),
    (config({"name": ""}), "applications[0].name"),
    (config({"import_path": "digits"}), "applications[0].import_path"),
    (config({"import_path": "a:b:c"}), "applications[0].import_path"),
    (config({"args": [1]}), "applications[0].args"),
    (config({"host": "0.0.0.0"}), "applications[0].host"),
    (config({"runtime_env": {"working_dir": "./app"}}), "applications[0].runtime_env.working_dir"),
    (config({"runtime_env": {"py_modules": ["lib"]}}), "applications[0].runtime_env.py_modules[0]"),
    (config({}, proxy_location="Everywhere"), "proxy_location"),
    (config({"deployments": [{"num_replicas": 1}]}), "applications[0].deployments[0].name"),
    (deployment(num_replicas=0), "applications[0].deployments[0].num_replicas"),
    (deployment(num_replicas="many"), "applications[0].deployments[0].num_replicas"),
    (
        deployment(num_replicas=2, autoscaling_config={"max_replicas": 4}),
        "applications[0].deployments[0].num_replicas",
    ),
    (deployment(user_config="fast"), "applications[0].deployments[0].user_config"),
    (
        deployment(ray_actor_options={"runtime_env": {"working_dir": "/app"}}),
        "applications[0].deployments[0].ray_actor_options.runtime_env.working_dir",
    ),
]
TAKEN: list[dict[str, Any]] = [
    {"applications": []},
    config({}),
    {"applications": [{**APP, "route_prefix": None}, {**APP, "name": "b", "route_prefix": None}]},
    config({"import_path": "digits.app"}),
    config({"runtime_env": {"working_dir": "https://host/app.zip", "pip": ["torch"]}}),
    config({"args": {"model": "x"}, "external_scaler_enabled": True}),
    config({}, http_options={"host": "0.0.0.0", "port": 8000, "root_path": "/x"}, proxy_location="HeadOnly"),
    deployment(num_replicas="auto", autoscaling_config={"min_replicas": 4, "target_ongoing_requests": 2}),
    deployment(num_replicas=3, user_config={}, ray_actor_options={"num_cpus": 0.5, "resources": {"x": 1}}),
    deployment(of_a_newer_ray=True),
]


def findings(value: dict[str, Any]) -> list[str]:
    patch = {"spec": {"serveConfigV2": yaml.safe_dump(value)}}
    found = lint(documents([merged(good("RayService"), patch)]))
    return [f"{each.level} {each.path.removeprefix('spec.serveConfigV2.')}" for each in found]


@pytest.mark.parametrize(("value", "path"), REFUSED)
def test_what_ray_serve_refuses_is_told_once(value: dict[str, Any], path: str) -> None:
    assert findings(value) == [f"error {path}"]
    with pytest.raises(ValueError, match="ServeDeploySchema"):
        ServeDeploySchema.model_validate(value)


@pytest.mark.parametrize("value", TAKEN)
def test_what_ray_serve_takes_is_left_in_peace(value: dict[str, Any]) -> None:
    ServeDeploySchema.model_validate(value)
    assert findings(value) == []


@pytest.mark.parametrize("route", ["a", "/a/", "/{a}", ""])
def test_a_route_that_ray_serve_does_not_deploy_is_told(route: str) -> None:
    assert findings(config({"route_prefix": route})) == ["error applications[0].route_prefix"]


@pytest.mark.parametrize("route", ["/a", "/", "/a/b.v2", "$ROUTE"])
def test_a_route_that_ray_serve_deploys_is_left_in_peace(route: str) -> None:
    assert findings(config({"route_prefix": route})) == []


@pytest.mark.parametrize(
    "bounds",
    [
        {"min_replicas": 2},
        {"initial_replicas": 3},
        {"min_replicas": 5, "max_replicas": 2},
        {"min_replicas": 3, "initial_replicas": 1, "max_replicas": 5},
        {"min_replicas": 0, "initial_replicas": 0, "max_replicas": 3},
        {"min_replicas": 0},
        {"max_replicas": 8},
    ],
)
def test_bounds_are_those_that_ray_serve_deploys(bounds: dict[str, int]) -> None:
    try:
        AutoscalingConfig.model_validate(bounds)
        valid = True
    except ValueError:
        valid = False
    assert (findings(deployment(autoscaling_config=bounds)) == []) is valid


@pytest.mark.parametrize(
    ("environment", "path"),
    [
        ({"env_vars": {"BATCH": 32}}, "env_vars.BATCH"),
        ({"env_vars": {"DEBUG": True}}, "env_vars.DEBUG"),
        ({"env_vars": ["BATCH=32"]}, "env_vars"),
        ({"pip": 3}, "pip"),
        ({"pip": ["torch"], "conda": "base"}, "conda"),
        ({"pip": ["torch"], "uv": ["ray"]}, "uv"),
        ({"excludes": "*.pt"}, "excludes"),
        ({"working_dir": 3}, "working_dir"),
        ({"working_dir": "https://github.com/team/code"}, "working_dir"),
        ({"py_modules": "https://host/lib.whl"}, "py_modules"),
    ],
)
def test_what_ray_refuses_of_an_environment_is_told(environment: dict[str, Any], path: str) -> None:
    with pytest.raises((TypeError, ValueError)):
        RuntimeEnv(**environment)
    patch = {"spec": {"runtimeEnvYAML": yaml.safe_dump(environment)}}
    assert [each.path for each in lint(documents([merged(good("RayJob"), patch)]))] == [
        f"spec.runtimeEnvYAML.{path}"
    ]
    assert findings(config({"runtime_env": environment})) == [f"error applications[0].runtime_env.{path}"]


@pytest.mark.parametrize(
    "environment",
    [
        {"env_vars": {"BATCH": "32"}, "pip": ["torch"], "config": {"setup_timeout_seconds": 600}},
        {"working_dir": "s3://bucket/code.tar.gz", "py_modules": ["https://host/lib.whl"]},
        {"pip": {"packages": ["torch"], "pip_check": False}, "excludes": ["*.pt"]},
        {"conda": "base"},
        {"uv": ["torch"], "nsight": "default"},
    ],
)
def test_an_environment_that_ray_takes_is_left_in_peace(environment: dict[str, Any]) -> None:
    RuntimeEnv(**environment)
    patch = {"spec": {"runtimeEnvYAML": yaml.safe_dump(environment)}}
    assert lint(documents([merged(good("RayJob"), patch)])) == []
    assert findings(config({"runtime_env": environment})) == []


def test_a_field_that_is_nearly_one_is_a_warning() -> None:
    patch = {"spec": {"runtimeEnvYAML": "env_var: {A: b}"}}
    (finding,) = lint(documents([merged(good("RayJob"), patch)]))
    assert (finding.level, finding.remedy) == ("warning", "did you mean env_vars?")


def test_the_fields_are_those_of_ray_serve() -> None:
    schema = ServeDeploySchema.model_json_schema()["$defs"]
    for fields, name in (
        (APPLICATION, "ServeApplicationSchema"),
        (DEPLOYMENT, "DeploymentSchema"),
        (ACTOR, "RayActorOptionsSchema"),
        (HTTP, "HTTPOptionsSchema"),
        (AUTOSCALING, "AutoscalingConfig"),
    ):
        assert set(schema[name]["properties"]) <= set(fields)
    assert set(ServeDeploySchema.model_fields) <= set(CONFIG)


def test_the_service_finds_the_proxies() -> None:
    def told(options: dict[str, Any], head: int, workers: int) -> list[str]:
        groups = [
            {
                "template": {
                    "spec": {"containers": {0: {"ports": [{"name": "serve", "containerPort": number}]}}}
                }
            }
            for number in (head, workers)
        ]
        cluster = {"headGroupSpec": groups[0], "workerGroupSpecs": {0: groups[1]}}
        text = yaml.safe_dump(config({}, http_options=options))
        patch = {"spec": {"serveConfigV2": text, "rayClusterConfig": cluster}}
        found = lint(documents([merged(good("RayService"), patch)]))
        return [each.path.rpartition("GroupSpec")[2] for each in found if each.id == "RS909"]

    at = "template.spec.containers[0].ports[0].containerPort"
    assert told({"port": 9000}, 9000, 9000) == told({}, 8000, 8000) == []
    assert told({"port": 9000}, 9000, 8000) == [f"s[0].{at}"]
    assert told({"port": 9000}, 8000, 9000) == told({}, 9000, 9000) == [f".{at}"]
    assert findings(config({}, http_options={"port": 9000})) == ["error http_options.port"]
    assert findings(config({}, http_options={"host": "127.0.0.1"})) == ["error http_options.host"]


def test_a_replica_fits_on_a_node() -> None:
    def told(asked: dict[str, Any], **limits: Any) -> list[str]:
        group = {"template": {"spec": {"containers": {0: {"resources": {"limits": limits}}}}}}
        cluster = {"headGroupSpec": group, "workerGroupSpecs": {0: group}}
        patch = {"spec": {"serveConfigV2": yaml.safe_dump(deployment(**asked)), "rayClusterConfig": cluster}}
        found = lint(documents([merged(good("RayService"), patch)]))
        return [each.path.rpartition(".")[2] for each in found if each.id == "RS911"]

    gpus = {"nvidia.com/gpu": 8}
    assert told({"ray_actor_options": {"num_gpus": 16}}, **gpus) == ["num_gpus"]
    assert told({"ray_actor_options": {"num_gpus": 8}}, **gpus) == []
    assert told({"ray_actor_options": {"num_cpus": 4.5}}, cpu="4") == ["num_cpus"]
    assert told({"ray_actor_options": {"num_cpus": 4}}, cpu="3500m") == []
    assert told({"ray_actor_options": {"num_cpus": 400}}) == []
    bundles = [{"CPU": 1}, {"GPU": 9}]
    assert told({"placement_group_bundles": bundles}, cpu=2, **gpus) == ["GPU"]
