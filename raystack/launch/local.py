"""Run a plan on this machine's Ray, or on the cluster at an address: Ray is started for the run and stopped
after it, or joined.
"""

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from types import ModuleType
from typing import Any

from raystack import interrupts, job_context
from raystack.config.target import Local, Target
from raystack.environment import folders, token
from raystack.errors import LaunchError, Problem
from raystack.events import Listener, PredictionListener
from raystack.outcome import Outcome, Prediction
from raystack.plan import PredictPlan, ServePlan, TrainPlan, TunePlan
from raystack.ray_internals import variables
from raystack.runs import selection
from raystack.training import precheck
from raystack.training.driver.fit import fit
from raystack.tuning.driver import run_study

CONNECT_S = 5.0
"""Seconds that a cluster may take to accept a connection."""


def train(plan: TrainPlan, listen: Listener, *, resume: bool, verbose: bool) -> Outcome:
    """Train as planned. A plan that is inline or for processes needs no Ray and starts none."""
    if plan.workers.on_ray:
        _prepare(_local(plan.config.target))
    else:
        folders.settle()
    with interrupts.deferred():  # what is imported may start threads
        precheck.check(plan)  # it may import the task, and with it Ray, which reads the environment then

    if plan.workers.inline:
        _import_ray(verbose=verbose)
    if not plan.workers.on_ray:
        return fit(plan, listen, resume=resume, verbose=verbose)
    target = _local(plan.config.target)
    place = cluster(target, verbose=verbose, meanwhile="raystack.training.driver.run")
    return fit(plan, listen, resume=resume, place=place)


def tune(plan: TunePlan, listen: Listener, *, resume: bool, verbose: bool) -> Outcome:
    """Run a study as planned.

    `resume` goes on with the study of that name. A later attempt of the job that began it does so by itself.
    """
    target = _local(plan.config.target)
    resume = resume or selection.goes_on(plan)
    _prepare(target)
    place = cluster(target, verbose=verbose, meanwhile="raystack.tuning.run")
    return run_study(plan, listen, resume=resume, place=place)


def predict(plan: PredictPlan, listen: PredictionListener, *, verbose: bool) -> Prediction:
    """Predict as planned. A plan that is inline needs no Ray and starts none."""
    target = plan.config.target
    if plan.workers.inline:
        folders.settle()
    else:
        _prepare(_local(target))
    # PyArrow and the model's card; a dry run and a training do without them.
    from raystack.serving.offline.run import predict as run

    meanwhile = "raystack.serving.offline.pool"
    return run(plan, listen, lambda: cluster(_local(target), verbose=verbose, meanwhile=meanwhile))


@contextmanager
def serving(plan: ServePlan, *, verbose: bool, stays: bool = False) -> Iterator[Outcome]:
    """Serve as planned during the block, or longer if it `stays`; yield where the model answers.

    A missing registered model, token or certificate is reported before Ray is started.
    """
    from raystack.serving.access import check
    from raystack.serving.lineage import record
    from raystack.serving.pin import pin
    from raystack.serving.surroundings import environment

    check(plan.serving)
    plan = pin(plan)
    target = _local(plan.config.target)
    _prepare(target)
    starts = target.address is None and not _import_ray(verbose=verbose).is_initialized()
    own = environment(plan.serving, alone=True) if starts else {}
    with cluster(target, verbose=verbose, environment=own) as dashboard:
        from raystack.serving.deploy import deploy, undeploy

        try:
            outcome = deploy(plan, own)
            record(plan)
            yield _with_dashboard(outcome, dashboard)
        finally:
            if not stays:
                undeploy(*plan.applications)
                record(plan, served=False)


def serve_detached(plan: ServePlan, *, verbose: bool) -> Outcome:
    """Serve as planned on a running cluster, and return.

    Raises LaunchError if the cluster would end with this process.
    """
    target = _local(plan.config.target)
    if target.address is None:
        remedy = "start one with `ray start --head` and set target.address=auto"
        raise LaunchError(
            Problem(
                "--detach",
                rule="a Ray cluster has to be running that stays when this command ends",
                remedy=remedy,
            )
        )
    with serving(plan, verbose=verbose, stays=True) as outcome:
        return outcome


def _local(target: Target) -> Local:
    assert isinstance(target, Local), "what runs elsewhere is submitted by remote.py"
    return target


def _with_dashboard(outcome: Outcome, dashboard: str | None) -> Outcome:
    return replace(outcome, links={**outcome.links, **({"dashboard": dashboard} if dashboard else {})})


@contextmanager
def cluster(
    target: Local,
    *,
    verbose: bool,
    meanwhile: str = "raystack.serving.deploy",
    cpus: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[str | None]:
    """Start or join Ray for the block; yield the dashboard's address if there is one.

    `environment` is for the processes of a Ray that is started. A connection that this process already has
    is used. The module `meanwhile` is imported while Ray starts. Ray's own output is hidden unless `verbose`,
    and then on stderr; Ray's log files have it. Raises LaunchError if no cluster answers.
    """
    _prepare(target)
    ray = _import_ray(verbose=verbose)
    if ray.is_initialized():
        yield None  # a notebook's own: it is used, and stays
        return
    with _connected(ray, target, meanwhile, cpus, environment, verbose=verbose) as address:
        try:
            command = None if target.address is None else job_context.dashboard_command()
            yield command or (f"http://{address}" if address else None)
        finally:
            _shut_down()


@contextmanager
def _connected(
    ray: Any,
    target: Local,
    meanwhile: str,
    cpus: int | None,
    environment: Mapping[str, str] | None,
    *,
    verbose: bool,
) -> Iterator[str | None]:
    """Start or join Ray and import a module at the same time; yield the dashboard's `host:port`."""
    # Ray has read the environment.
    from raystack.ray_internals import output, start

    # PyTorch's import takes as long as Ray's start, so both run at the same time.
    importing = interrupts.start_deaf(lambda: import_module(meanwhile), "raystack-import")
    node = start.OwnNode(environment)
    with output.off_stdout(verbose=verbose), interrupts.leaving(node.kill):
        try:
            # In a connection that is only half made no signal can be handled: Ray aborts the process.
            with interrupts.deferred(), node.starting():
                if target.address is None:
                    options = _dashboard(target) | _output(verbose=verbose)
                    context = ray.init("local", num_cpus=cpus, **options)
                else:
                    context = ray.init(address=target.address, **_homeless(), **_output(verbose=verbose))
        except KeyboardInterrupt:
            if ray.is_initialized():
                _shut_down()
            node.kill()
            raise
        except Exception as error:  # Ray raises it bare where a node takes too long to start
            raise LaunchError(_unreachable(target, error)) from error
        finally:
            importing.join()
        yield context.dashboard_url


def _shut_down() -> None:
    """Leave Ray, and end it if it was started here."""
    from raystack.ray_internals import start

    with interrupts.deferred():
        start.shut_down()


def _prepare(target: Local) -> None:
    """Set the environment that Ray reads when it is imported and started; the user's values stay.

    Idempotent. Raises LaunchError if nothing listens at the address, or if it would reject this process.
    """
    if target.address is not None:
        _refuse_silent(target, target.address)
    folders.settle()
    os.environ.setdefault(variables.TRAIN_HEALTH_CHECK_INTERVAL, "0.5")
    # Nodes that go away are looked for by the run's own policy (training/driver/trainer.py), without an actor
    # per attempt.
    os.environ.setdefault(variables.TRAIN_PREEMPTION_WATCHER, "0")
    if target.address is not None:
        token.settle_joined(target.address)
        return
    token.settle_own()
    # Ray's workers run at nice 15, so whatever else wakes up on a small machine stops the training for it.
    os.environ.setdefault(variables.WORKER_NICENESS, "0")


def _import_ray(*, verbose: bool) -> ModuleType:
    """Import Ray, and silence its loggers unless `verbose`."""
    ray = import_module("ray")
    if not verbose:
        logging.getLogger("ray").setLevel(logging.CRITICAL)
    return ray


def _dashboard(target: Local) -> dict[str, Any]:
    """Return the dashboard's options for `ray.init`."""
    # Without a port Ray looks for a free one; with a port it fails if that one is taken.
    if not target.dashboard:
        return {"include_dashboard": False}
    return (
        {"include_dashboard": True, "dashboard_port": target.dashboard_port} if target.dashboard_port else {}
    )


def _homeless() -> dict[str, Any]:
    """Return a runtime environment with the home folder that was made up, if any."""
    # A driver without a home is in a container whose cluster has none either, and Ray Train looks for one
    # when it is imported.
    home = folders.made_up()
    return {"runtime_env": {"env_vars": dict(home)}} if home else {}


def _output(*, verbose: bool) -> dict[str, Any]:
    return {} if verbose else {"log_to_driver": False, "logging_level": logging.CRITICAL}


def _refuse_silent(target: Local, address: str) -> None:
    """Raise LaunchError at once if nothing listens at the address; Ray would try it for minutes."""
    host, _, port = address.rpartition(":")
    if "://" in address or not port.isdigit():
        return  # `auto`, or a form that only Ray knows
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise LaunchError(_unreachable(target, error)) from error


def _unreachable(target: Local, error: Exception) -> Problem:
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if target.address is None:
        logs = f"{folders.ray_folder()}/session_latest/logs"
        return Problem(
            "ray", rule=f"Ray could not be started: {first}", remedy=f"look into {logs}, or run with -v"
        )
    return Problem(
        "target.address",
        rule=f"no Ray cluster answers there: {first}",
        got=target.address,
        remedy="start one with `ray start --head`, or drop the address to have Ray started for the run",
    )
