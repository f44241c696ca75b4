"""`raystack render config.yaml [key=value ...]`: the Kubernetes manifests of a config."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import raystack
from raystack.cli.options import Config, Json
from raystack.cli.verb import Verb, option

if TYPE_CHECKING:
    from raystack.cli.terminal import Terminal
    from raystack.kuberay.manifest import Manifest
    from raystack.plan.kuberay import Form


@dataclass(frozen=True, kw_only=True)
class Options(Json, Config):
    """Of `render`."""

    form: str = option(
        "--as",
        help="what to render (cron where one is scheduled, else job)",
        default="",
        choices=("job", "service", "cluster", "cron", "all"),
    )
    out: str | None = option(
        "-o", "--out", help="write files there, not on stdout", default=None, metavar="FOLDER"
    )
    kustomize: bool = option(
        "--kustomize", help="with -o: one file for each object, and a kustomization.yaml"
    )
    diff: bool = option(
        "--diff",
        help="ask the cluster what would change: in place, through a new cluster, by creating it again,"
        " or not at all",
    )


def run(options: Options, terminal: "Terminal") -> None:
    """Render, and print, write or compare."""
    from raystack.config.kuberay import KubeRay
    from raystack.kuberay.actions.prepare import prepare
    from raystack.kuberay.manifest import kustomize, to_yaml
    from raystack.plan.target import forms

    config = options.experiment.config
    if not isinstance(config.target, KubeRay):
        rule, remedy = "only what runs on Kubernetes has manifests", "add target=kuberay"
        raise raystack.ConfigError(
            raystack.Problem("target", rule=rule, got=config.target.kind, remedy=remedy)
        )
    _refuse_idle(options)
    rendered: dict[str, Sequence[Manifest]] = {}
    for form in _chosen(options.form, forms(config)):
        prepared = prepare(config, None, form)
        for finding in prepared.warnings:
            terminal.warn(str(finding))
        rendered[form] = prepared.manifests
    everything = _each_once(rendered.values())
    if options.diff:
        _diff(raystack.ClusterRef.of(config.target), rendered, terminal)
    elif options.out is None:
        terminal.text(to_yaml(everything))
    else:
        texts = {f"{form}.yaml": to_yaml(manifests) for form, manifests in rendered.items()}
        terminal.files(_write(Path(options.out), kustomize(everything) if options.kustomize else texts))


def _refuse_idle(options: Options) -> None:
    """What cannot take effect is refused."""
    if options.kustomize and options.out is None:
        problem = raystack.Problem("--kustomize", rule="is several files", remedy="say where with -o FOLDER")
        raise raystack.ConfigError(problem)
    if options.diff and options.out is not None:
        problem = raystack.Problem(
            "--out", rule="--diff compares and writes nothing", remedy="drop one of them"
        )
        raise raystack.ConfigError(problem)
    if options.json and not options.diff and options.out is None:
        rule, remedy = "manifests are YAML", "drop it, or add --diff or -o FOLDER"
        raise raystack.ConfigError(raystack.Problem("--json", rule=rule, remedy=remedy))


def _diff(
    where: "raystack.ClusterRef", rendered: "Mapping[str, Sequence[Manifest]]", terminal: "Terminal"
) -> None:
    """Show what the cluster would change; it tries each object and writes none."""
    from raystack.kuberay.actions.submit import preview

    client = where.client()
    changed = {}
    for manifests in rendered.values():
        changed.update(preview(client, manifests))
    terminal.changes(changed)


def _write(folder: Path, texts: Mapping[str, str]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def _chosen(form: str, possible: "tuple[Form, ...]") -> "tuple[Form, ...]":
    match form:
        case "job" | "service" | "cluster" | "cron":
            return (form,)
        case "all":
            return possible
        case _:
            return ("cron",) if "cron" in possible else ("job",)


def _each_once(groups: "Iterable[Sequence[Manifest]]") -> "tuple[Manifest, ...]":
    """What several forms share, such as a service account, stands once."""
    found = {(each["kind"], each["metadata"]["name"]): each for group in groups for each in group}
    return tuple(found.values())


VERB = Verb(
    name="render",
    help="write the Kubernetes manifests of a config",
    options=Options,
    run=run,
    group="Kubernetes",
    usage="[options] config.yaml [key=value ...]",
)
