"""Deployment of a ServePlan with Ray Serve, on a Ray that is already initialised."""

import time
import urllib.error
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from ray import serve
from ray.serve import RunTarget
from ray.serve.schema import ApplicationStatus

from raystack.errors import LaunchError, Problem, ServingError
from raystack.outcome import Outcome
from raystack.plan import ServePlan
from raystack.plan.serving import SERVER, all_models, initial_replicas
from raystack.plan.split import model_of
from raystack.ray_internals import serve as internals
from raystack.serving import example, startup, update
from raystack.serving.access import Access
from raystack.serving.applications import POLL_S, delete, silent, wait_for_resources, wait_until_running
from raystack.serving.grpc.probe import is_ready
from raystack.serving.pin import version_of
from raystack.serving.several.app import bind_gateway
from raystack.serving.startup import on_head_node

ANSWER_S = 60.0
"""Seconds that a deployment may take to answer over HTTP after Serve reports it running."""


def deploy(plan: ServePlan, inherited: Mapping[str, str] | None = None) -> Outcome:
    """Serve the plan's pinned models and wait until they answer. Replace a deployment of the same names.

    `inherited` is Serve's environment if the processes of this Ray have it.

    A model that is served already is updated only if its replicas can load the new version, which they do
    beside the old one; it answers until then. Of several models those that are new are there before others
    change, and those that the plan does not have go at last; if one cannot be served, all stays as it was.
    Raises LaunchError for errors of the environment (port, resources), ServingError with the replica's reason
    for errors of the model, ConfigError if there is no such model.
    """
    assert all("@" not in each.model for each in plan.models), "replicas could serve two versions"
    with silent():
        running = _running(plan)
        wait_for_resources(plan)
        new = [name for name in plan.applications if name not in running]
        # The replicas of a model look for the versions beside it.
        first = [name for name in new if name in plan.beside]
        with startup.started(plan, inherited or {}):
            _start(plan, first)
            with _deleted_if_failed(first):
                versions = _prepared(plan, running)
                try:
                    _start(plan, [name for name in new if name not in first])
                except BaseException:
                    update.discard(versions)
                    raise
        _change(plan, [name for name in plan.applications if name in running])
        delete([name for name in running if name not in plan.applications])
        _wait_until_ready(plan, running, versions)
    return _outcome(plan)


def undeploy(*names: str) -> None:
    """Stop serving applications after their pending requests, those that are served.

    Without another application, Serve itself is stopped as well, which frees its port.
    """
    with silent():
        there = [name for name in serve.status().applications if name in names or model_of(name) in names]
        delete(there)
        if there and not serve.status().applications:
            serve.shutdown()


def _outcome(plan: ServePlan) -> Outcome:
    grpc = {} if plan.grpc_address is None else {"grpc": plan.grpc_address}
    if plan.several:
        urls = {f"model {name}": f"{plan.url}/models/{name}" for name in all_models(plan.serving)}
        return Outcome(links={"url": plan.url, **urls, **grpc, "try": _of_several(plan, urls)})
    version = plan.model if version_of(plan.model) else None
    return Outcome(model_version=version, links={"url": plan.url, **grpc, "try": example.command(plan)})


def _of_several(plan: ServePlan, urls: Mapping[str, str]) -> str:
    """Return a command for a model that has a replica; asking another would start one."""
    applications = serve.status().applications
    awake = (model for model in plan.models if internals.has_replica(applications[model.name]))
    model = next(awake, None)
    if model is None:
        return Access.of(plan.serving).curl(next(iter(urls.values())))
    return example.command(model)


def _running(plan: ServePlan) -> Mapping[str, ApplicationStatus]:
    """Return the status of each application of the server. Raise LaunchError if another one is there."""
    found = {name: each.status for name, each in serve.status().applications.items()}
    known = {model.name for model in plan.models}
    others = [name for name in found if name not in plan.applications and model_of(name) not in known]
    if not others or (plan.several and SERVER in found):
        return found
    if SERVER in found:
        rule = f"this cluster serves several models, and '{plan.name}' would have all paths of the server"
        remedy = "name it in serving.models, or stop them"
    elif plan.several:
        rule, remedy = f"this cluster already serves '{others[0]}' alone", "stop it"
    else:
        rule = f"this cluster already serves '{others[0]}', and one model has all paths of a server"
        remedy = f"stop it, or replace it with serving.name={others[0]}"
    raise LaunchError(Problem("serving.name", rule=rule, got=plan.name, remedy=remedy))


def _prepared(plan: ServePlan, running: Mapping[str, ApplicationStatus]) -> dict[str, str | None]:
    """Have the replicas of each model that is to change load its version; return the versions' names.

    Raises as `update.prepare` does. Then none of them is kept.
    """
    versions: dict[str, str | None] = {}
    try:
        for model in plan.models:
            answers = running.get(model.name) == ApplicationStatus.RUNNING and model.serving.kind == "model"
            if answers and (not plan.several or update.changes(model)):
                versions[model.name] = update.prepare(model)
    except BaseException:
        update.discard(versions)
        raise
    return versions


def _target(plan: ServePlan, name: str) -> RunTarget:
    if name == SERVER:
        return RunTarget(bind_gateway(plan.serving, plan.tracking), name=SERVER, route_prefix="/")
    model = _model(plan, name)
    # No client's path leads to a version beside a model.
    return RunTarget(
        update.bound(model), name=name, route_prefix=None if name in plan.beside else model.route
    )


def _model(plan: ServePlan, name: str) -> ServePlan:
    return plan.beside.get(name) or next(model for model in plan.models if model.name == name)


def _start(plan: ServePlan, names: Sequence[str]) -> None:
    """Deploy applications that are new, and none of them if one of them cannot be."""
    with _deleted_if_failed(names):
        _change(plan, names)


@contextmanager
def _deleted_if_failed(names: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for name in names:
            serve.delete(name, _blocking=False)
        raise


def _change(plan: ServePlan, names: Sequence[str]) -> None:
    if not names:
        return
    targets = [_target(plan, name) for name in names]
    serve.run_many(targets, wait_for_applications_running=False)
    for name in names:
        wait_until_running(plan, name, "serve" if name == SERVER else _model(plan, name).model)


def _wait_until_ready(
    plan: ServePlan, running: Mapping[str, ApplicationStatus], versions: Mapping[str, str | None]
) -> None:
    """Wait until what is new or has changed answers over HTTP, and then until gRPC does.

    Serve reports RUNNING before its proxy routes to replicas.
    """
    if not on_head_node():
        return
    access, until = Access.of(plan.serving), time.monotonic() + ANSWER_S
    for url in _addresses(plan, running, versions):
        while (reason := _unready(access, url, plan.grpc_address)) is not None:
            if time.monotonic() >= until:
                rule = f"is deployed and does not answer: {reason}"
                raise ServingError(Problem(url, rule=rule, remedy="run with -v"))
            time.sleep(POLL_S)


def _addresses(
    plan: ServePlan, running: Mapping[str, ApplicationStatus], versions: Mapping[str, str | None]
) -> Iterator[str]:
    """Yield what has to answer. A model that has no replica is not asked, because that starts one."""
    if plan.serving.kind == "llm":
        yield f"{plan.url.removesuffix('/v1')}/health"
        return
    for model in plan.models:
        version = versions.get(model.name)
        if version is not None:
            yield f"{model.url}/versions/{version}/ready"
        elif not plan.several or (model.name not in running and initial_replicas(model.serving)):
            yield f"{model.url}/ready"
    if plan.several:
        yield f"{plan.url}/health/ready"


def _unready(access: Access, url: str, grpc_address: str | None) -> str | None:
    """Return why a model does not answer; None if it does."""
    try:
        with access.open(url, timeout=5):
            pass
    except (urllib.error.URLError, OSError) as error:
        return str(error)
    if grpc_address is not None and not is_ready(grpc_address, access.tls):
        return f"{grpc_address} does not answer over gRPC"
    return None
