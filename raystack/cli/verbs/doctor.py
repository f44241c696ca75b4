"""`raystack doctor [config.yaml]`: whether a Kubernetes cluster has what KubeRay and raystack need."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import raystack
from raystack.cli.options import Config, Json, Kubernetes
from raystack.cli.verb import Verb

if TYPE_CHECKING:
    from raystack.cli.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Options(Json, Kubernetes, Config):
    """Options of `doctor`."""


def run(options: Options, terminal: "Terminal") -> None:
    """Show all checks. Raises LaunchError with everything that is missing."""
    from raystack.kuberay.actions.doctor import doctor, wanted_by

    if options.words:
        target, wanted = wanted_by(options.experiment.config)
        checks = doctor(options.cluster.over(raystack.ClusterRef.of(target)).client(), wanted)
    else:
        checks = doctor(options.cluster.client())
    terminal.checks(checks)
    if missing := [check for check in checks if check.ok is False]:
        raise raystack.LaunchError(
            raystack.Problem(check.name, rule=check.found, remedy=check.remedy or None) for check in missing
        )


VERB = Verb(
    name="doctor",
    help="look at a Kubernetes cluster: is everything there that KubeRay and raystack need?",
    options=Options,
    run=run,
    group="Kubernetes",
    usage="[options] [config.yaml [key=value ...]]",
)
