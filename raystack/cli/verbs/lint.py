"""`raystack lint FILE...`: manifests of KubeRay by the operator's own rules, and by further ones."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import raystack
from raystack.cli.options import Json, Verbose
from raystack.cli.verb import Verb, argument, option

if TYPE_CHECKING:
    from raystack.cli.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Options(Json, Verbose):
    """Options of `lint`."""

    files: tuple[str, ...] = argument(
        metavar="FILE",
        help=(
            "YAML with RayClusters, RayJobs, RayServices or RayCronJobs, and what belongs to them;"
            " a folder, or - for standard input"
        ),
        nargs="+",
    )
    kuberay: str | None = option(
        "--kuberay", help="version of the operator, e.g. 1.6.0", default=None, metavar="VERSION"
    )
    gates: tuple[str, ...] = option(
        "--gate",
        help="a feature gate that is on; may be repeated",
        default=(),
        action="append",
        metavar="NAME",
    )
    scheduler: str | None = option(
        "--scheduler",
        help=(
            "the operator's batchScheduler.name: volcano, yunikorn, kai-scheduler, scheduler-plugins, or none"
        ),
        default=None,
        metavar="NAME",
    )


def run(options: Options, terminal: "Terminal") -> int:
    """Show all findings; if one is an error, the exit status is that of a PlanError."""
    from raystack.kuberay.lint import Operator, lint, read_all

    operator = Operator.of(options.kuberay, frozenset(options.gates), options.scheduler)
    documents, nothing = read_all(options.files)
    findings = [*nothing, *lint(documents, operator)]
    terminal.findings(findings)
    return raystack.PlanError.exit_code if any(finding.level == "error" for finding in findings) else 0


VERB = Verb(
    name="lint",
    help="check manifests of KubeRay by the operator's rules and beyond them",
    options=Options,
    run=run,
    group="Kubernetes",
)
