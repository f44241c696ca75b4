"""Reachability from the pods: mounts, URLs, servers and secrets."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from raystack.config import RunConfig
from raystack.config.kuberay import KubeRay
from raystack.config.volumes import LASTING, Volume
from raystack.errors import Problem
from raystack.plan.kuberay.environment import environment_problems
from raystack.plan.kuberay.shape import DRIVEN, Form
from raystack.plan.serving import ServePlan
from raystack.plan.training import plan_tracking

CODE = "/etc/raystack"
"""Mount path of a run's config and code."""

THIS_MACHINE = ("localhost", "127.0.0.1", "::1", "0.0.0.0")


def reach_problems(
    config: RunConfig, target: KubeRay, form: Form, serve: ServePlan | None
) -> Iterator[Problem]:
    """Yield what a pod needs but could not reach."""
    yield from _mount_problems(target)
    yield from environment_problems(target)
    yield from _identity_problems(target)
    if target.queue.multikueue:
        yield from _elsewhere_problems(config, target, form)
    if _is_this_machine(target.storage.s3_endpoint):
        rule = "is the pod itself, seen from a pod"
        yield Problem(
            "target.storage.s3_endpoint",
            rule=rule,
            got=target.storage.s3_endpoint,
            remedy="name the store as pods see it",
        )
    if form in DRIVEN:
        yield from _storage_problems(config, target)
        yield from _tracking_problems(plan_tracking(config)[0], config, target)
        yield from _tracker_problems(config, target)
        yield from _secret_problems(config, target)
        if form == "tune":
            yield from _sampler_problems(config, target)
    elif serve is not None:
        if serve.serving.tls is not None:
            rule = "is for a server on this machine: the pods of a RayService listen without it"
            yield Problem("serving.tls", rule=rule, remedy="leave TLS to the Ingress or Gateway")
        yield from _model_problems(serve, target)
        yield from _tracking_problems(serve.tracking.uri, config, target)
        yield from _secret_problems(config, target)


def _mount_problems(target: KubeRay) -> Iterator[Problem]:
    taken: dict[str, str] = {CODE: "raystack mounts the run's config there"}
    seen: dict[str, set[str]] = {}
    if target.high_availability.backend == "rocksdb":
        taken["/data/gcs"] = "KubeRay mounts the state of the head there"
    if target.security.tls:
        taken["/etc/ray/tls"] = "KubeRay mounts the certificates there"
    for index, volume in enumerate(target.storage.volumes):
        mount = volume.mount.rstrip("/")
        twice = "another volume is mounted there" if seen.get(mount, set()) & set(volume.pods) else None
        if (rule := taken.get(mount, twice)) is not None:
            where = f"target.storage.volumes.{index}.mount"
            yield Problem(
                where, rule=rule, got=volume.mount, remedy="mount it elsewhere, e.g. at /mnt/raystack"
            )
        seen.setdefault(mount, set()).update(volume.pods)


def _identity_problems(target: KubeRay) -> Iterator[Problem]:
    for key in ("aws_role", "gcp_service_account"):
        if getattr(target.storage, key) is not None and target.service_account is not None:
            rule = "is written on a ServiceAccount that raystack makes, and target.service_account is yours"
            yield Problem(
                f"target.storage.{key}",
                rule=rule,
                remedy="annotate yours and drop this, or drop target.service_account",
            )
    if target.storage.aws_role is not None and target.storage.s3_secret is not None:
        rule = "the keys of a Secret would win over the role"
        yield Problem(
            "target.storage.s3_secret", rule=rule, remedy="drop it, or drop target.storage.aws_role"
        )


def _elsewhere_problems(config: RunConfig, target: KubeRay, form: Form) -> Iterator[Problem]:
    """Yield what is missing on another cluster, to which Kueue moves only the main object."""
    if target.service_account is None:
        rule = "the other cluster does not have the ServiceAccount that raystack would make here"
        yield Problem("target.service_account", rule=rule, remedy="name one that is there, e.g. default")
    if target.security.network_policy and target.security.network_policy_by == "manifest":
        rule = "the other cluster does not have the policies that are rendered here"
        remedy = "set it to kuberay, which makes them where the cluster is"
        yield Problem("target.security.network_policy_by", rule=rule, got="manifest", remedy=remedy)
    if form in DRIVEN and "://" not in config.experiment.storage:
        rule = "the run's code reaches another cluster through an object store only"
        yield Problem(
            "experiment.storage",
            rule=rule,
            got=config.experiment.storage,
            remedy="set it to an object store's URL",
        )


def _storage_problems(config: RunConfig, target: KubeRay) -> Iterator[Problem]:
    storage = config.experiment.storage
    if "://" in storage:
        return
    volume = _volume(storage, target)
    if volume is None or not isinstance(volume, LASTING):
        rule = "is a folder of the pod, whose checkpoints end with it"
        remedy = "set it to an object store's URL, or below the mount of one of target.storage.volumes"
        yield Problem("experiment.storage", rule=rule, got=storage, remedy=remedy)
    elif volume.read_only:
        rule = f"lies below {volume.mount}, which is mounted read-only"
        yield Problem("experiment.storage", rule=rule, got=storage, remedy="drop read_only of that volume")
    elif not {"head", "workers"} <= set(volume.pods):
        rule = f"lies below {volume.mount}, which the head and the workers should both have"
        yield Problem("experiment.storage", rule=rule, got=storage, remedy="drop pods of that volume")


def _model_problems(serve: ServePlan, target: KubeRay) -> Iterator[Problem]:
    for each in serve.models:
        section = f"serving.models.{each.name}" if serve.several else "serving"
        graph = each.serving.graph
        models = [("model", each.model)]
        if graph is not None:
            models = [(f"graph.steps.{name}.model", model) for name, model in graph.models.items()]
        if each.serving.split is not None:
            models += [("split", reference) for reference in each.serving.split.references]
        for key, model in models:
            if model.startswith("models:/") or "://" in model or _volume(model, target) is not None:
                continue
            rule = "is a folder that the pods do not have"
            remedy = (
                "name a registered model or an object store's URL, or mount it with target.storage.volumes"
            )
            yield Problem(f"{section}.{key}", rule=rule, got=model, remedy=remedy)


def _tracking_problems(uri: str | None, config: RunConfig, target: KubeRay) -> Iterator[Problem]:
    if uri is None:
        return
    remedy = (
        "set tracking.uri to a server that pods reach, e.g. http://mlflow.mlflow.svc:5000, or tracking=off"
    )
    split = urlsplit(uri)
    if _is_this_machine(uri):
        yield Problem("tracking.uri", rule="is the pod itself, seen from a pod", got=uri, remedy=remedy)
    elif split.hostname is None and uri != "databricks" and _volume(_file(uri), target) is None:
        if (
            config.tracking.uri is None
            and _volume(config.experiment.storage, target) is None
            and "://" not in config.experiment.storage
        ):
            got: str | None = None
            rule = "is left out, and the MLflow store in experiment.storage would be a file of the pod"
        else:
            got, rule = uri, "is a file of the pod"
        yield Problem("tracking.uri", rule=rule, got=got, remedy=remedy)


def _tracker_problems(config: RunConfig, target: KubeRay) -> Iterator[Problem]:
    """Yield what is wrong with the places of TensorBoard's and W&B's records."""
    board, wandb = config.tracking.tensorboard, config.tracking.wandb
    folder = board.folder if board is not None else None
    if folder is not None and "://" not in folder and _volume(folder, target) is None:
        rule = "is a folder of the pod, which ends with it"
        remedy = "name an object store's URL, mount it with target.storage.volumes, or drop it"
        yield Problem("tracking.tensorboard.folder", rule=rule, got=folder, remedy=remedy)
    if wandb is not None and _is_this_machine(wandb.base_url):
        where, rule = "tracking.wandb.base_url", "is the pod itself, seen from a pod"
        yield Problem(where, rule=rule, got=wandb.base_url, remedy="name the server as pods see it")


def _sampler_problems(config: RunConfig, target: KubeRay) -> Iterator[Problem]:
    """Yield what is wrong with the place of Optuna's study."""
    uri = getattr(config.tuning.search, "storage", None) if config.tuning is not None else None
    if uri is None:
        return
    where, remedy = "tuning.search.storage", "name a database that pods reach, or drop it"
    if _is_this_machine(uri):
        yield Problem(where, rule="is the pod itself, seen from a pod", got=uri, remedy=remedy)
    elif urlsplit(uri).hostname is None and _volume(_file(uri), target) is None:
        yield Problem(where, rule="is a file of the pod, which ends with it", got=uri, remedy=remedy)


def _file(uri: str) -> str:
    """Return the path in `sqlite:////mnt/x.db`, `file:///mnt/x` or `/mnt/x`."""
    return "/" + (uri.split(":", 1)[1] if ":" in uri else uri).lstrip("/")


def _secret_problems(config: RunConfig, target: KubeRay) -> Iterator[Problem]:
    for where, reference in _references(config.model_dump(mode="json", exclude={"target"}), ()):
        _, kind, name = reference.split(":", 2)
        if kind == "env" and name not in target.secrets:
            rule = f"reads {name} from the environment, and no Secret is named for it"
            yield Problem(where, rule=rule, got=reference, remedy=f"add target.secrets.{name}=secret/key")
        if kind == "file" and _volume(name, target) is None:
            rule = "reads a file that the pods do not have"
            remedy = "use secret:env:NAME with target.secrets, or mount the file with target.storage.volumes"
            yield Problem(where, rule=rule, got=reference, remedy=remedy)


def _references(node: Any, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield (dotted key, reference) of every secret."""
    match node:
        case dict():
            for key, value in node.items():
                yield from _references(value, (*path, str(key)))
        case list():
            for index, value in enumerate(node):
                yield from _references(value, (*path, str(index)))
        case str() if node.startswith(("secret:env:", "secret:file:")):
            yield ".".join(path), node


def _volume(path: str, target: KubeRay) -> Volume | None:
    """Return the volume whose mount contains `path`, or None."""
    return next(
        (
            volume
            for volume in target.storage.volumes
            if f"{path}/".startswith(f"{volume.mount.rstrip('/')}/")
        ),
        None,
    )


def _is_this_machine(url: str | None) -> bool:
    return url is not None and urlsplit(url).hostname in THIS_MACHINE
