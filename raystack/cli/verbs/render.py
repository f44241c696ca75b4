"""`raystack render config.yaml [key=value ...]`: the Kubernetes manifests of a config."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import raystack
from raystack.cli.options import Json, Placed
from raystack.cli.verb import Verb, option

if TYPE_CHECKING:
    from raystack.cli.terminal import Terminal
    from raystack.config import RunConfig
    from raystack.kuberay.actions.gitops import Controller
    from raystack.kuberay.actions.prepare import Prepared
    from raystack.kuberay.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class Options(Json, Placed):
    """Options of `render`."""

    form: str = option(
        "--as",
        help="what to render (cron where one is scheduled, else job)",
        default="",
        choices=("job", "service", "cluster", "cron", "tune", "katib", "rollout", "role", "all"),
    )
    step: int | None = option(
        "--step",
        help="step of --as rollout (1); at 0 the new version runs and is not asked",
        default=None,
        type=int,
        metavar="N",
    )
    out: str | None = option(
        "-o", "--out", help="write files there, not on stdout", default=None, metavar="FOLDER"
    )
    kustomize: bool = option(
        "--kustomize", help="with -o: one file for each object, and a kustomization.yaml"
    )
    gitops: str | None = option(
        "--gitops",
        help="with -o: a bundle for Argo CD or Flux, or a chart of Helm; target.gitops says where it lies",
        default=None,
        choices=("argo", "flux", "helm"),
    )
    upload: bool = option(
        "--upload", help="put code of more than 900 KiB where the pods fetch it, below experiment.storage"
    )
    diff: bool = option(
        "--diff",
        help="ask the cluster what would change: in place, through a new cluster, by creating it again,"
        " or not at all",
    )


def run(options: Options, terminal: "Terminal") -> None:
    """Render, and print, write or compare."""
    from raystack.kuberay.actions import prepare
    from raystack.kuberay.manifest import to_yaml

    config = options.experiment.config
    forms = prepare.chosen(options.form, config)
    _refuse_idle(options)
    if options.diff and "rollout" in forms and config.rollout is not None and config.rollout.mesh:
        rule, remedy = "compares the objects of one service, and a mesh has two", "use `kubectl diff -f -`"
        raise raystack.ConfigError(raystack.Problem("--diff", rule=rule, remedy=remedy))
    if options.gitops is not None:
        _bundle(config, forms, options, terminal)
        return
    rendered: dict[str, Sequence[Manifest]] = {}
    for form in forms:
        if form == "role":
            rendered[form] = prepare.prepare_roles(config)
            continue
        if form == "rollout":
            prepared = prepare.prepare_rollout(config, 1 if options.step is None else options.step)
        else:
            prepared = prepare.prepare(config, None, form)
        _deliver(prepared, options)
        for finding in prepared.warnings:
            terminal.warn(str(finding))
        rendered[form] = prepared.manifests
    if options.diff:
        _diff(config, rendered, terminal)
    elif options.out is None:
        terminal.text(to_yaml(prepare.each_once(rendered.values())))
    else:
        texts = prepare.texts(rendered, kustomized=options.kustomize)
        # one kustomization.yaml lists all files of the folder; without it each `--as` has its own
        rendered_as = "kustomize" if options.kustomize else options.form or forms[0]
        _write(Path(options.out), texts, rendered_as, terminal)


def _bundle(config: "RunConfig", forms: "Sequence[Any]", options: Options, terminal: "Terminal") -> None:
    """Write the bundle that a controller applies."""
    from raystack.kuberay.actions.gitops import build

    assert options.out is not None
    step = 1 if options.step is None else options.step
    built = build(config, forms, cast("Controller", options.gitops), options.out, step)
    for prepared in built.prepared:
        _deliver(prepared, options)
    for finding in built.warnings:
        terminal.warn(str(finding))
    _write(Path(options.out), built.texts, "gitops", terminal)


def _refuse_idle(options: Options) -> None:
    """Reject options that would have no effect."""
    for flag, given in (("--kustomize", options.kustomize), ("--gitops", options.gitops is not None)):
        if given and options.out is None:
            problem = raystack.Problem(flag, rule="is several files", remedy="say where with -o FOLDER")
            raise raystack.ConfigError(problem)
    if options.gitops is not None and (options.kustomize or options.form == "role"):
        other = "--kustomize" if options.kustomize else "--as role"
        rule, remedy = "is a bundle of what a config runs", f"drop {other}"
        raise raystack.ConfigError(raystack.Problem("--gitops", rule=rule, got=other, remedy=remedy))
    if options.diff and options.out is not None:
        problem = raystack.Problem(
            "--out", rule="--diff compares and writes nothing", remedy="drop one of them"
        )
        raise raystack.ConfigError(problem)
    if options.upload and options.diff:
        problem = raystack.Problem("--upload", rule="--diff changes nothing", remedy="drop one of them")
        raise raystack.ConfigError(problem)
    if options.diff and options.form == "role":
        rule, remedy = "compares what a config runs", "use `kubectl diff -f -`"
        raise raystack.ConfigError(raystack.Problem("--diff", rule=rule, got="role", remedy=remedy))
    if options.step is not None and options.form != "rollout":
        rule, remedy = "is of a rollout", "add --as rollout"
        raise raystack.ConfigError(
            raystack.Problem("--step", rule=rule, got=str(options.step), remedy=remedy)
        )
    if options.json and not options.diff and options.out is None:
        rule, remedy = "manifests are YAML", "drop it, or add --diff or -o FOLDER"
        raise raystack.ConfigError(raystack.Problem("--json", rule=rule, remedy=remedy))


def _diff(config: "RunConfig", rendered: "Mapping[str, Sequence[Manifest]]", terminal: "Terminal") -> None:
    """Show what would change on the cluster, by a server-side dry run of each object."""
    from raystack.kuberay.actions.submit import preview

    client = raystack.ClusterRef.of(config.target).client()
    changed = {}
    for manifests in rendered.values():
        changed.update(preview(client, manifests))
    terminal.changes(changed)


def _deliver(prepared: "Prepared", options: Options) -> None:
    """Upload what the manifests fetch; a submission does so by itself, and whoever applies them cannot."""
    if options.upload:
        prepared.put()
    elif prepared.fetched is not None and not options.diff:
        rule = f"is fetched by the pods from {prepared.fetched}, where only a submission uploads it"
        remedy = "add --upload, or name a task.folder with less in it"
        got = f"{prepared.bundle.size // 1024} KiB"
        raise raystack.PlanError(raystack.Problem("task.folder", rule=rule, got=got, remedy=remedy))


def _write(folder: Path, texts: Mapping[str, str], rendered: str, terminal: "Terminal") -> None:
    """Write the files, and say what an earlier render had left there."""
    from raystack.kuberay.actions.folder import write

    written = write(folder, texts, rendered)
    for path in written.removed:
        terminal.warn(f"{path}: removed, because this config does not render it any more")
    for path in written.kept:
        terminal.warn(f"{path}: rendered before and changed since; nothing renders it any more")
    terminal.files(written.paths)


VERB = Verb(
    name="render",
    help="write the Kubernetes manifests of a config",
    options=Options,
    run=run,
    group="Kubernetes",
    usage="[options] config.yaml [key=value ...]",
)
