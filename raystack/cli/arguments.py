"""Command lines -> Arguments. Only argparse is imported, so that `--help` and a mistyped option answer at
once.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

REMOTES = {
    "status": (
        "what is known of something that runs elsewhere, in one line; without a name: of everything there"
    ),
    "logs": "the log of its driver, or of all pods",
    "diagnose": "why it does not run: one cause and one remedy",
    "cancel": "stop it and let its resources go; its logs are kept first",
    "suspend": "let its resources go and keep it",
    "resume": "go on after suspend",
    "scale": "change the number of its workers",
    "connect": "reach its dashboard, its served model and MLflow from this machine",
    "gc": "find clusters that are idle and jobs that have ended; delete them with --yes",
    "doctor": "look at a Kubernetes cluster: is everything there that KubeRay and raystack need?",
}
"""Verbs of what runs elsewhere; all in one module, `raystack.remotes`."""
VERBS = {
    "train": "train a model, record it in MLflow and register it",
    "serve": "serve a model over HTTP (Open Inference Protocol v2)",
    "checkpoint": "list, check and export the checkpoints of a run",
    "render": "write the Kubernetes manifests of a config",
    "lint": "check manifests of KubeRay by the operator's rules and beyond them",
    **REMOTES,
    "schema": "print the JSON Schema of a config, or its reference as Markdown",
}
MODULES = {"checkpoint": "checkpoints"}
"""Of the verbs whose module has another name: `raystack.checkpoint` is the room."""
FORMS = ("job", "service", "cluster", "cron")


@dataclass(frozen=True)
class Arguments:
    """What was typed, for any verb."""

    verb: str
    config: str = ""
    overrides: tuple[str, ...] = ()
    dry_run: bool = False
    memory: bool = False
    json: bool = False
    verbose: bool = False
    resume: bool = False
    run: str | None = None
    wait: bool = False
    detach: bool = False
    timeout_s: float | None = None
    markdown: bool = False
    action: str = ""
    url: str = ""
    out: str | None = None
    form: str = ""
    kustomize: bool = False
    diff: bool = False
    files: tuple[str, ...] = ()
    kuberay: str | None = None
    gates: tuple[str, ...] = ()
    scheduler: str | None = None
    reference: str | None = None
    address: str | None = None
    token_from: str | None = None
    namespace: str | None = None
    context: str | None = None
    kubeconfig: str | None = None
    watch: bool = False
    follow: bool = False
    everything: bool = False
    workers: int = 0
    to: tuple[str, ...] = ()
    mlflow: str = "mlflow"
    token: bool = False
    older_s: float = 0.0
    everywhere: bool = False
    foreign: bool = False
    keep: str = ""
    yes: bool = False


def parse(
    verb: str | None, argv: Sequence[str] | None, among: Mapping[str, str] = VERBS, prog: str = "raystack"
) -> Arguments:
    """Parse the arguments of `verb`, or of `raystack <verb> ...` where it is None. Ends the process with 2 on
    a mistake.
    """
    if verb is None:
        parser = argparse.ArgumentParser(
            prog=prog,
            description="One config trains, tracks, registers and serves a model on Ray.",
            epilog="\n".join(["verbs:", *(f"  {name:<12}{text}" for name, text in among.items())]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument(
            "verb", choices=among, metavar="verb", help="what to do; the verbs are listed below"
        )
        parser.add_argument(
            "rest",
            nargs=argparse.REMAINDER,
            metavar="...",
            help="arguments of the verb; `raystack <verb> --help` lists them",
        )
        known = parser.parse_args(argv)
        return _parse(known.verb, known.rest, f"{prog} {known.verb}")
    return _parse(verb, argv, f"python -m raystack.{MODULES.get(verb, verb)}")


def _parse(verb: str, argv: Sequence[str] | None, prog: str) -> Arguments:
    text = VERBS[verb]
    parser = argparse.ArgumentParser(prog=prog, description=f"{text[0].upper()}{text[1:]}.")
    if verb == "checkpoint":
        _add_actions(parser)
        return Arguments(verb, **vars(parser.parse_args(argv)))
    if verb in REMOTES:
        _add_remote(parser, verb)
        return _arguments(verb, parser, _frozen(vars(parser.parse_intermixed_args(argv))))
    _add(parser, verb)
    return _arguments(verb, parser, _frozen(vars(parser.parse_intermixed_args(argv))))


def _frozen(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _arguments(verb: str, parser: argparse.ArgumentParser, values: dict[str, Any]) -> Arguments:
    words = values.pop("words", None)
    if words is None or (verb == "doctor" and not words):
        return Arguments(verb, **values)
    if not words or "=" in words[0]:
        parser.error("the path of a config comes first")
    values["resume"] = values.get("resume", False) or values.get("run") is not None
    return Arguments(verb, config=words[0], overrides=words[1:], **values)


def _add(parser: argparse.ArgumentParser, verb: str) -> None:
    if verb == "schema":
        parser.add_argument("--markdown", action="store_true", help="print the reference as Markdown instead")
        return
    if verb == "lint":
        _add_lint(parser)
        return
    parser.usage = "%(prog)s [options] config.yaml [key=value ...]"
    help_words = (
        "path of the YAML config, then overrides in Hydra's grammar, e.g. training.epochs=3 resources=inline"
    )
    parser.add_argument("words", nargs="*", metavar="config.yaml key=value", help=help_words)
    parser.add_argument("-v", "--verbose", action="store_true", help="show Ray's own output and tracebacks")
    if verb == "render":
        parser.add_argument(
            "--as",
            dest="form",
            choices=(*FORMS, "all"),
            default="",
            help="what to render (cron where one is scheduled, else job)",
        )
        parser.add_argument("-o", "--out", metavar="FOLDER", help="write files there, not on stdout")
        parser.add_argument(
            "--kustomize",
            action="store_true",
            help="with -o: one file for each object, and a kustomization.yaml",
        )
        text = (
            "ask the cluster what would change: in place, through a new cluster, by creating it again, or not"
            " at all"
        )
        parser.add_argument("--diff", action="store_true", help=text)
        return
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    parser.add_argument(
        "--json", action="store_true", help="with --dry-run: as JSON; else: the outcome as JSON on stdout"
    )
    if verb == "train":
        parser.add_argument(
            "--memory",
            action="store_true",
            help="measure the model, and plan each device's memory under every strategy",
        )
        parser.add_argument(
            "--resume",
            action="store_true",
            help="go on from the last good checkpoint of the experiment's newest run",
        )
        parser.add_argument("--run", metavar="ID", help="the run to go on with; implies --resume")
    left = "deploy to a running Ray cluster and leave" if verb == "serve" else "submit and leave"
    end = (
        "the service answers"
        if verb == "serve"
        else "it has ended, showing the driver's log, and end with its exit status"
    )
    wait = parser.add_mutually_exclusive_group()
    wait.add_argument("--wait", action="store_true", help=f"target=job or kuberay: stay until {end}")
    wait.add_argument("--detach", action="store_true", help=f"{left}: the default for target=job and kuberay")
    parser.add_argument(
        "--timeout",
        dest="timeout_s",
        type=float,
        metavar="SECONDS",
        help="with --wait: stay no longer; it goes on",
    )


def _add_lint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="YAML with RayClusters, RayJobs, RayServices or RayCronJobs, and what belongs to them",
    )
    parser.add_argument("--json", action="store_true", help="as JSON on stdout")
    parser.add_argument("--kuberay", metavar="VERSION", help="version of the operator, e.g. 1.6.0")
    parser.add_argument(
        "--gate",
        dest="gates",
        action="append",
        default=[],
        metavar="NAME",
        help="a feature gate that is on; may be repeated",
    )
    parser.add_argument("--scheduler", metavar="NAME", help="the operator's batchScheduler.name")
    parser.add_argument("-v", "--verbose", action="store_true", help="show tracebacks")


def _add_remote(parser: argparse.ArgumentParser, verb: str) -> None:
    """A reference and where it is, in the same words for every verb."""
    if verb == "doctor":
        parser.usage = "%(prog)s [options] [config.yaml [key=value ...]]"
        text = "a config whose target is kuberay: what it needs is looked for, too"
        parser.add_argument("words", nargs="*", metavar="config.yaml key=value", help=text)
    elif verb != "gc":
        nargs = "?" if verb == "status" else None
        text = "rayjob/NAME, rayservice/NAME, raycluster/NAME or raycronjob/NAME in Kubernetes"
        text += "; job/ID on a Ray cluster" if verb != "connect" else ""
        parser.add_argument("reference", nargs=nargs, metavar="KIND/NAME", help=text)
    match verb:
        case "status":
            text = "a line for every change, until it has ended; then end with its exit status"
            parser.add_argument("--watch", action="store_true", help=text)
            parser.add_argument(
                "--timeout",
                dest="timeout_s",
                type=float,
                metavar="SECONDS",
                help="with --watch: no longer than that",
            )
        case "logs":
            parser.add_argument("-f", "--follow", action="store_true", help="go on until it has ended")
            text = "of all pods and containers, or of all attempts of a job/ID, each line with its source"
            parser.add_argument("--all", dest="everything", action="store_true", help=text)
        case "scale":
            parser.add_argument(
                "workers", type=int, metavar="WORKERS", help="how many worker pods there should be"
            )
        case "connect":
            text = "which door; may be repeated (a service: serve and dashboard; else: dashboard)"
            parser.add_argument(
                "--to",
                action="append",
                default=[],
                choices=("dashboard", "serve", "client", "mlflow"),
                help=text,
            )
            parser.add_argument(
                "--mlflow", default="mlflow", metavar="NAME", help="the Service of MLflow (mlflow)"
            )
            parser.add_argument(
                "--token", action="store_true", help="show Ray's token, which the dashboard asks for"
            )
        case "gc":
            text = "what was not used, or is over, for that long (3600)"
            parser.add_argument(
                "--older", dest="older_s", type=float, default=3600.0, metavar="SECONDS", help=text
            )
            parser.add_argument(
                "-A", "--all-namespaces", dest="everywhere", action="store_true", help="in every namespace"
            )
            parser.add_argument("--foreign", action="store_true", help="also what raystack has not made")
            text = "where logs are kept before something is deleted (raystack-logs)"
            parser.add_argument("--keep", default="raystack-logs", metavar="FOLDER", help=text)
            parser.add_argument(
                "--yes", action="store_true", help="delete what was found; without it, it is only shown"
            )
    if verb not in ("logs", "connect"):
        parser.add_argument("--json", action="store_true", help="as JSON on stdout")
    _add_place(parser, jobs=verb not in ("connect", "gc", "doctor"))
    parser.add_argument("-v", "--verbose", action="store_true", help="show tracebacks")


def _add_place(parser: argparse.ArgumentParser, *, jobs: bool) -> None:
    place = parser.add_argument_group("where")
    if jobs:
        text = "the Ray cluster's dashboard, for job/ID (RAY_API_SERVER_ADDRESS, or http://127.0.0.1:8265)"
        place.add_argument("--address", metavar="URL", help=text)
        text = "reference to its token: secret:env:NAME or secret:file:/path (what Ray itself finds)"
        place.add_argument("--token-from", dest="token_from", metavar="REFERENCE", help=text)
    place.add_argument("-n", "--namespace", metavar="NAME", help="of Kubernetes (default)")
    place.add_argument("--context", metavar="NAME", help="of the kubeconfig (the current one)")
    place.add_argument("--kubeconfig", metavar="FILE", help="(KUBECONFIG, or ~/.kube/config)")


def _add_actions(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="action", required=True)
    for name, text in (
        ("ls", "one line for each checkpoint, from its manifest and the sizes of its files"),
        (
            "verify",
            "read every file and compare its SHA-256 with the manifest; status 5 if anything is damaged",
        ),
        (
            "export",
            (
                "write full weights in safetensors, into the checkpoint or into a folder of their own; needs"
                " no cluster"
            ),
        ),
    ):
        action = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        action.add_argument(
            "url",
            help=(
                "a run's folder, its checkpoints folder, or one checkpoint; a path or an fsspec URL such as"
                " s3://"
            ),
        )
        if name == "export":
            action.add_argument(
                "--out", metavar="FOLDER", help="write a model folder there and leave the checkpoint as it is"
            )
        else:
            action.add_argument("--json", action="store_true", help="as JSON on stdout")
        action.add_argument("-v", "--verbose", action="store_true", help="show tracebacks")
