"""`raystack gc`: clusters that are idle and jobs that have ended, and with --yes their end."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import raystack
from raystack.cli.options import Json, Kubernetes, seconds
from raystack.cli.verb import Verb, option

if TYPE_CHECKING:
    from raystack.cli.terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Options(Json, Kubernetes):
    """Options of `gc`."""

    older_s: float = option(
        "--older",
        help="what was not used, or is over, for that long (3600)",
        default=3600.0,
        type=seconds,
        metavar="SECONDS",
    )
    everywhere: bool = option("-A", "--all-namespaces", help="in every namespace")
    foreign: bool = option("--foreign", help="also what raystack has not made")
    keep: str | None = option(
        "--keep",
        help="with --yes: where logs are kept before something is deleted (raystack-logs)",
        default=None,
        metavar="FOLDER",
    )
    prices: str | None = option(
        "--prices",
        help="price table for what idle clusters cost: eks, gke, aks, or a YAML file",
        default=None,
        metavar="NAME",
    )
    yes: bool = option("--yes", help="delete what was found; without it, it is only shown")


def run(options: Options, terminal: "Terminal") -> None:
    """Show what may be deleted; with --yes archive its logs and delete it."""
    from raystack.config.price_list import load_prices
    from raystack.kuberay.actions.gc import collect, sweep

    if options.keep is not None and not options.yes:
        rule, remedy = "says where --yes keeps logs", "add --yes, or drop it"
        raise raystack.ConfigError(raystack.Problem("--keep", rule=rule, remedy=remedy))
    client = options.cluster.client()
    table = load_prices(options.prices) if options.prices is not None else None
    found = collect(client, options.older_s, table, everywhere=options.everywhere, everything=options.foreign)
    terminal.leftovers(found)
    if options.yes:
        for folder in sweep(client, found, options.keep or "raystack-logs"):
            terminal.say(f"logs kept in {folder}")
    elif any(each.kept is None for each in found):
        terminal.say("nothing was deleted: --yes does it")


VERB = Verb(
    name="gc",
    help="find clusters that are idle and jobs that have ended; delete them with --yes",
    options=Options,
    run=run,
    group="Kubernetes",
)
