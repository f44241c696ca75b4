"""`python -m raystack.render config.yaml [key=value ...]`: the Kubernetes manifests of a config, on stdout or
as files.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from raystack.cli.arguments import Arguments, parse

if TYPE_CHECKING:
    from raystack.config import RunConfig
    from raystack.config.kuberay import KubeRay
    from raystack.kuberay.manifest import Manifest
    from raystack.plan.kuberay import Form


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    return run(parse("render", argv))


def run(arguments: Arguments) -> int:
    """Returns the exit status."""
    # Imports follow the parsing, so that --help and a mistyped option do not wait for them.
    from raystack import logs
    from raystack.cli.terminal import guard

    logs.setup(verbose=arguments.verbose)
    return guard(lambda: _render(arguments), verbose=arguments.verbose)


def _render(arguments: Arguments) -> None:
    from raystack import config
    from raystack.cli.terminal import show_files, show_text, warn
    from raystack.config.kuberay import KubeRay
    from raystack.errors import ConfigError, Problem
    from raystack.kuberay.actions.prepare import prepare
    from raystack.kuberay.manifest import kustomize, to_yaml

    asked = config.load(arguments.config, arguments.overrides)
    if not isinstance(asked.target, KubeRay):
        rule = "only what runs on Kubernetes has manifests"
        raise ConfigError(
            Problem(
                "target",
                rule=rule,
                got=asked.target.kind,
                remedy="add target=kuberay, or choose it in the defaults list",
            )
        )
    if arguments.kustomize and arguments.out is None:
        raise ConfigError(Problem("--kustomize", rule="is several files", remedy="say where with -o FOLDER"))
    rendered: dict[str, Sequence[Manifest]] = {}
    for form in _forms(arguments.form, asked):
        prepared = prepare(asked, None, form)
        for finding in prepared.warnings:
            warn(str(finding))
        rendered[form] = prepared.manifests
    everything = _each_once(rendered.values())
    if arguments.diff:
        _diff(asked.target, rendered)
        return
    if arguments.out is None:
        show_text(to_yaml(everything))
        return
    texts = (
        kustomize(everything)
        if arguments.kustomize
        else {f"{form}.yaml": to_yaml(manifests) for form, manifests in rendered.items()}
    )
    for name, text in texts.items():
        path = Path(arguments.out, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    show_files(Path(arguments.out, name) for name in texts)


def _diff(target: "KubeRay", rendered: "Mapping[str, Sequence[Manifest]]") -> None:
    """What the cluster would change; it tries each object and writes none."""
    from raystack.cli.remote import show_changes
    from raystack.kuberay.actions.submit import preview
    from raystack.launch.remote import ClusterRef

    client = ClusterRef.of(target).client()
    for manifests in rendered.values():
        show_changes(preview(client, manifests))


def _forms(asked_for: str, config: "RunConfig") -> "tuple[Form, ...]":
    from raystack.launch.remote import forms

    match asked_for:
        case "job" | "service" | "cluster" | "cron":
            return (asked_for,)
        case "all":
            return forms(config)
        case _:
            return ("cron",) if "cron" in forms(config) else ("job",)


def _each_once(groups: "Iterable[Sequence[Manifest]]") -> "tuple[Manifest, ...]":
    """What several forms share, such as a service account, stands once."""
    found = {(each["kind"], each["metadata"]["name"]): each for group in groups for each in group}
    return tuple(found.values())


if __name__ == "__main__":
    sys.exit(main())
