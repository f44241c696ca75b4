"""The bundle of `raystack render --gitops`: forms of a config -> files for a repository, without a cluster.

A job is named by what it runs. A service names the version that its alias points to, so that an alias that
has moved is a change of the bundle, and a commit.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from raystack.config import RunConfig
from raystack.config.gitops import GitOps
from raystack.config.kuberay import KubeRay
from raystack.config.predict import Predict
from raystack.config.serving import Serving
from raystack.errors import ConfigError, Problem
from raystack.kuberay.actions import folder as folders
from raystack.kuberay.actions.prepare import Prepared, prepare, prepare_rollout
from raystack.kuberay.lint import Finding
from raystack.kuberay.manifest import Manifest
from raystack.kuberay.manifest.gitops import argo, bundled, chart, digest, flux
from raystack.plan.kuberay import Form
from raystack.plan.kuberay.names import safe_name
from raystack.plan.serving import plan_serving

Controller = Literal["argo", "flux", "helm"]
_ALIAS = re.compile(r"models:/+[^/:@'\"]+@")
_NAMES = {"argo": "Argo CD", "flux": "Flux"}
_ONCE = ("job", "tune", "katib")
_LENGTH = 53


@dataclass(frozen=True)
class Built:
    """Files of a bundle, with what to know and to deliver before."""

    texts: Mapping[str, str]
    prepared: tuple[Prepared, ...]
    warnings: tuple[Finding, ...]


def build(
    config: RunConfig,
    forms: Sequence[Form | Literal["rollout"]],
    controller: Controller,
    out: str,
    step: int = 1,
) -> Built:
    """Plan, render and lint the forms, and bundle them; `step` is that of a rollout.

    Raises ConfigError where the repository or the folder in it is not known, ServingError where an alias is
    served and MLflow does not answer, and otherwise as `prepare` does.
    """
    target = config.target
    assert isinstance(target, KubeRay)
    if target.namespace is None:
        rule = "has to be the same whoever renders the bundle, and is that of the kubeconfig"
        raise ConfigError(Problem("target.namespace", rule=rule, remedy="set it, or add -n"))
    path = _path(target.gitops, out)
    if controller != "helm" and target.gitops.source is None:
        rule, remedy = f"{_NAMES[controller]} reads the bundle from there", "set it to the repository's URL"
        raise ConfigError(Problem("target.gitops.source", rule=rule, remedy=remedy))
    if controller != "argo" and target.gitops.hook != "none":
        rule, remedy = "is a phase of Argo CD's sync", "drop it"
        raise ConfigError(Problem("target.gitops.hook", rule=rule, got=target.gitops.hook, remedy=remedy))
    made = [_prepared(config, form, target.gitops, step) for form in forms]
    named = made[0][1] if len(made) == 1 else config.experiment.name
    bundle = bundled(
        [prepared.manifests for prepared, _ in made],
        name=safe_name(named, _LENGTH),
        namespace=target.namespace,
        path=path,
        config=target.gitops,
    )
    match controller:
        case "argo":
            texts = argo(bundle)
        case "flux":
            texts = flux(bundle)
        case "helm":
            texts = chart(bundle, target.image)
    every = tuple(prepared for prepared, _ in made)
    found = [finding for prepared in every for finding in prepared.warnings]
    found += [*_looked(bundle.manifests, target.gitops), *_shared(texts, Path(out))]
    return Built(texts, every, tuple(dict.fromkeys(found)))


def _path(config: GitOps, out: str) -> str:
    """Return the folder of the bundle in its repository."""
    if config.path is not None:
        return PurePosixPath(config.path).as_posix()
    folder = Path(out).absolute()
    top = next((each for each in (folder, *folder.parents) if (each / ".git").exists()), None)
    if top is not None:
        return folder.relative_to(top).as_posix()
    path = PurePosixPath(out)
    if path.is_absolute() or ".." in path.parts:
        rule = "is where the bundle lies in its repository, and --out is in none"
        raise ConfigError(Problem("target.gitops.path", rule=rule, got=out, remedy="set it, e.g. to deploy"))
    return path.as_posix()


def _prepared(
    config: RunConfig, form: Form | Literal["rollout"], gitops: GitOps, step: int
) -> tuple[Prepared, str]:
    """Return what is prepared of a form, and its name without a digest."""
    if form == "rollout":
        prepared = prepare_rollout(pinned(config), step)
        return prepared, prepared.plan.name
    if form == "service":
        prepared = prepare(pinned(config), None, form)
        return prepared, prepared.plan.name
    prepared = prepare(_trained(config), None, form)
    name = prepared.plan.name
    if form not in _ONCE or gitops.hook != "none":
        return prepared, name
    content = digest(prepared.manifests[-1], prepared.bundle.digest)
    return prepare(_trained(config), None, form, title=f"{name}-{content}"), name


def pinned(config: RunConfig) -> RunConfig:
    """Return the config with the versions that the aliases of its models point to now."""
    plan = plan_serving(config)
    if not _ALIAS.search(str(plan.serving.model_dump())):
        return config
    from raystack.serving.pin import pinned as pinned_serving  # asks MLflow

    return config.model_copy(update={"serving": pinned_serving(plan.serving, plan.tracking)})


def _trained(config: RunConfig) -> RunConfig:
    """Return the config without what no training reads: a change of it trains nothing anew."""
    if config.registry.gates is not None:
        return config
    unread = {"serving": Serving(), "predict": Predict(), "rollout": None, "automation": None}
    return config.model_copy(update=unread)


def _looked(manifests: Sequence[Manifest], gitops: GitOps) -> Iterator[Finding]:
    """Yield what lets the same commit mean different things."""
    images = {image: each for each in manifests for image in _images(each)}
    for image, each in images.items():
        if "@sha256:" not in image:
            where = f"{each['kind'].lower()}/{each['metadata']['name']}"
            reason = "a tag can come to mean another image, which no commit shows"
            remedy = "name it by digest, name@sha256:..."
            yield Finding("gitops", "warning", where, f"image {image}", reason, remedy)
    for each in manifests:
        rules = (each.get("spec") or {}).get("deletionStrategy", {}).get("deletionRules", [])
        if each["kind"] == "RayJob" and any(rule["policy"] == "DeleteSelf" for rule in rules):
            reason = "what deletes itself is missing, and is made and run again"
            remedy = "use DeleteCluster, which keeps the RayJob"
            yield Finding(
                "gitops", "warning", f"rayjob/{each['metadata']['name']}", "DeleteSelf", reason, remedy
            )


def _shared(texts: Mapping[str, str], out: Path) -> Iterator[Finding]:
    """Yield the namespaces that a bundle beside this one has, too: their controllers take it in turns."""
    beside = [folder for folder in sorted(out.absolute().parent.glob("*/")) if folder != out.absolute()]
    names = {path.name: folder for folder in beside for path in folders.rendered(folder)}
    for name in texts:
        if name.startswith("namespace-") and name in names:
            where = f"namespace/{name.removeprefix('namespace-').removesuffix('.yaml')}"
            reason = "what two bundles have, each takes from the other again and again"
            remedy = "set target.gitops.create_namespace=false for one of them"
            yield Finding("gitops", "warning", where, f"it is in ../{names[name].name}, too", reason, remedy)


def _images(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("image"), str):
            yield value["image"]
        for inner in value.values():
            yield from _images(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _images(inner)
