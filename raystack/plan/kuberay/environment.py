"""Environment of the pods: the variables of the config, of Serve, object stores and MLflow."""

from collections.abc import Iterator, Mapping

from raystack.config import RunConfig
from raystack.config.kuberay import KubeRay
from raystack.errors import Problem
from raystack.plan.kuberay.shape import Variable
from raystack.plan.serving import ServePlan, environment

TAKEN: Mapping[str, str] = {
    "RAY_REDIS_ADDRESS": "target.high_availability.redis",
    "REDIS_PASSWORD": "target.high_availability.redis_password",
    "REDIS_USERNAME": "target.high_availability.redis",
    "RAY_gcs_storage": "target.high_availability.backend",
    "RAY_gcs_storage_path": "target.high_availability.backend",
    "RAY_enable_autoscaler_v2": "target.autoscaling.enabled",
    "KUBERAY_GEN_AUTOSCALER_START_CMD": "target.autoscaling",
    "RAY_USE_TLS": "target.security.tls",
    "RAY_TLS_SERVER_CERT": "target.security.tls",
    "RAY_TLS_SERVER_KEY": "target.security.tls",
    "RAY_TLS_CA_CERT": "target.security.tls",
    "RAY_AUTH_MODE": "target.security.auth",
    "RAY_AUTH_TOKEN": "target.security.auth_secret",
}
"""Environment variables that KubeRay sets or rejects, with the key to use instead."""


def plan_variables(config: RunConfig, target: KubeRay, serve: ServePlan | None) -> tuple[Variable, ...]:
    """Return the environment of all pods, sorted: the config's, and Serve's, object stores' and MLflow's."""
    storage = target.storage
    plain = {**(environment(serve.serving) if serve is not None else {}), **target.env}
    secrets = {name: _secret(reference) for name, reference in target.secrets.items()}
    if storage.s3_endpoint is not None:
        plain |= {"AWS_ENDPOINT_URL": storage.s3_endpoint, "MLFLOW_S3_ENDPOINT_URL": storage.s3_endpoint}
    if storage.s3_secret is not None:
        secrets |= {
            name: (storage.s3_secret, name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        }
    if serve is not None and serve.tracking.uri is not None:
        own, tracked = _login(config, target)
        plain |= own
        secrets |= tracked
    found = [Variable(name, value=value) for name, value in plain.items()]
    found += [Variable(name, secret=secret) for name, secret in secrets.items()]
    found += [Variable(name, of_pod=of_pod) for name, of_pod in target.pod_fields.items()]
    return tuple(sorted(found, key=lambda variable: variable.name))


def _login(config: RunConfig, target: KubeRay) -> tuple[dict[str, str], dict[str, tuple[str, str]]]:
    """Return MLflow's credentials for a service, as values and Secrets."""
    tracking = config.tracking
    named = {"MLFLOW_TRACKING_TOKEN": tracking.token, "MLFLOW_TRACKING_PASSWORD": tracking.password}
    secrets = {}
    for variable, reference in named.items():
        name = (reference or "").removeprefix("secret:env:")
        if name in target.secrets:
            secrets[variable] = _secret(target.secrets[name])
    return ({"MLFLOW_TRACKING_USERNAME": tracking.username} if tracking.username else {}), secrets


def _secret(reference: str) -> tuple[str, str]:
    name, _, key = reference.partition("/")
    return name, key


def environment_problems(target: KubeRay) -> Iterator[Problem]:
    """Yield variables that something else sets, and those with two values."""
    made = {variable.name for variable in _object_store(target)}
    for section, names in (
        ("env", target.env),
        ("secrets", target.secrets),
        ("pod_fields", target.pod_fields),
    ):
        for name in names:
            where = f"target.{section}.{name}"
            if name in TAKEN:
                yield Problem(where, rule="KubeRay sets it, or refuses it", remedy=f"use {TAKEN[name]}")
            elif name in made:
                yield Problem(where, rule="is set by target.storage already", remedy="drop one of them")
            elif section != "env" and name in target.env:
                yield Problem(where, rule="is in target.env as well", remedy="drop one of them")
            elif section == "pod_fields" and name in target.secrets:
                yield Problem(where, rule="is in target.secrets as well", remedy="drop one of them")


def _object_store(target: KubeRay) -> tuple[Variable, ...]:
    storage = target.storage
    names = ("AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL") if storage.s3_endpoint else ()
    return tuple(
        map(
            Variable, (*names, *(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY") if storage.s3_secret else ()))
        )
    )
