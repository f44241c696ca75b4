"""What Ray Serve's config of applications has: the text of a RayService's `serveConfigV2`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from raystack.errors import nearest
from raystack.kuberay.lint.node import Node
from raystack.kuberay.lint.texts import inside

Type = Literal["mapping", "list", "text"]
Fields = Mapping[str, Type | None]
"""Fields by name, with the type of those whose type is looked at."""

TYPES: Mapping[Type, type] = {"mapping": dict, "list": list, "text": str}


def _free(names: str) -> Fields:
    return dict.fromkeys(names.split())


CONFIG: Fields = {
    "applications": "list",
    "http_options": "mapping",
    "grpc_options": "mapping",
    "logging_config": "mapping",
    **_free("controller_options proxy_location target_capacity tracing_config"),
}
HTTP = _free(
    "host port root_path request_timeout_s keep_alive_timeout_s"
    " ssl_keyfile ssl_certfile ssl_keyfile_password ssl_ca_certs"
)
APPLICATION: Fields = {
    "name": "text",
    "import_path": "text",
    "route_prefix": "text",
    "runtime_env": "mapping",
    "args": "mapping",
    "deployments": "list",
    **_free("autoscaling_policy external_scaler_enabled host logging_config port"),
}
DEPLOYMENT: Fields = {
    "name": "text",
    "user_config": "mapping",
    "autoscaling_config": "mapping",
    "ray_actor_options": "mapping",
    "placement_group_bundles": "list",
    **_free(
        "num_replicas max_ongoing_requests max_queued_requests max_concurrent_queries backpressure_config"
        " graceful_shutdown_wait_loop_s graceful_shutdown_timeout_s health_check_period_s"
        " health_check_timeout_s is_driver_deployment logging_config placement_group_strategy"
        " placement_group_bundle_label_selector max_replicas_per_node request_router_config"
        " gang_scheduling_config deployment_actors version rolling_update_percentage max_surge_percent"
        " route_prefix"
    ),
}
AUTOSCALING = _free(
    "min_replicas initial_replicas max_replicas target_ongoing_requests policy metrics_interval_s"
    " target_num_ongoing_requests_per_replica look_back_period_s smoothing_factor"
    " upscale_smoothing_factor downscale_smoothing_factor upscaling_factor downscaling_factor"
    " downscale_delay_s downscale_to_zero_delay_s upscale_delay_s aggregation_function"
)
ACTOR: Fields = {
    "runtime_env": "mapping",
    "resources": "mapping",
    **_free("num_cpus num_gpus memory object_store_memory accelerator_type label_selector fallback_strategy"),
}


@dataclass(frozen=True)
class Part:
    """Mapping of the config, with the fields that it may have and those that it needs."""

    node: Node
    fields: Fields
    needed: tuple[str, ...] = ()

    @property
    def meant(self) -> dict[str, str]:
        """Unknown fields that are close to a known one: a newer Ray may have others."""
        near = {name: nearest(name, self.fields) for name in self.node.fields if name not in self.fields}
        return {name: known for name, known in near.items() if known is not None}


@dataclass(frozen=True)
class ServeConfig:
    """Config of a RayService's applications; empty if it cannot be read."""

    node: Node

    @classmethod
    def of(cls, text: Node) -> "ServeConfig":
        """Return the config in a field."""
        return cls(inside(text))

    @property
    def applications(self) -> list[Node]:
        """Applications."""
        return _mappings(self.node["applications"])

    @property
    def deployments(self) -> list[Node]:
        """Deployments of all applications."""
        return [each for application in self.applications for each in _mappings(application["deployments"])]

    def parts(self) -> Iterator[Part]:
        """Yield all mappings whose fields are known."""
        if not isinstance(self.node.value, dict):
            return
        yield Part(self.node, CONFIG, ("applications",))
        yield Part(self.node["http_options"], HTTP)
        yield from (Part(each, APPLICATION, ("import_path",)) for each in self.applications)
        for deployment in self.deployments:
            yield Part(deployment, DEPLOYMENT, ("name",))
            yield Part(deployment["autoscaling_config"], AUTOSCALING)
            yield Part(deployment["ray_actor_options"], ACTOR)

    def runtime_envs(self) -> Iterator[Node]:
        """Yield the runtime environments of applications and of replicas."""
        for application in self.applications:
            yield application["runtime_env"]
        for deployment in self.deployments:
            yield deployment.at("ray_actor_options", "runtime_env")


def _mappings(node: Node) -> list[Node]:
    return [each for each in node.items if isinstance(each.value, dict)]
