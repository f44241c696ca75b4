"""`raystack connect KIND/NAME`: its dashboard, its served model and MLflow as addresses on this machine."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import raystack
from raystack.cli.options import Json, Kubernetes
from raystack.cli.verb import Verb, argument, option

if TYPE_CHECKING:
    from raystack.cli.terminal import Terminal
    from raystack.kuberay.observe.connect import What

MLFLOW = "mlflow"


@dataclass(frozen=True, kw_only=True)
class Options(Json, Kubernetes):
    """Options of `connect`."""

    reference: str = argument(
        metavar="KIND/NAME", help="rayjob/NAME, rayservice/NAME, raycluster/NAME or raycronjob/NAME"
    )
    to: tuple[str, ...] = option(
        "--to",
        help="what to reach; may be repeated (a service: serve and dashboard; else: dashboard)",
        default=(),
        action="append",
        choices=("dashboard", "serve", "client", MLFLOW),
    )
    mlflow: str | None = option(
        "--mlflow", help="with --to mlflow: its Service (mlflow)", default=None, metavar="NAME"
    )
    token: bool = option("--token", help="show Ray's token, which the dashboard asks for")


def run(options: Options, terminal: "Terminal") -> None:
    """Forward the ports until Ctrl-C."""
    from raystack.kuberay.observe.connect import connect
    from raystack.launch.remote import split

    kind, name = split(options.reference)
    if kind == "job":
        rule = "a job has no address of its own, and its dashboard is at the cluster's"
        remedy = "open the dashboard of the cluster's --address"
        raise raystack.ConfigError(raystack.Problem("name", rule=rule, got=options.reference, remedy=remedy))
    if options.mlflow is not None and MLFLOW not in options.to:
        rule = "names what --to mlflow reaches"
        raise raystack.ConfigError(raystack.Problem("--mlflow", rule=rule, remedy="add --to mlflow"))
    wanted = options.to or (("serve", "dashboard") if kind == "rayservice" else ("dashboard",))
    client = options.cluster.client()
    with connect(
        client, kind, name, cast("tuple[What, ...]", wanted), mlflow=options.mlflow or MLFLOW
    ) as ports:
        terminal.ports(ports, tokens=options.token)
        terminal.say("connected until Ctrl-C")
        terminal.until_interrupted()


VERB = Verb(
    name="connect",
    help="reach its dashboard, its served model and MLflow from this machine",
    options=Options,
    run=run,
    group="what runs elsewhere",
)
