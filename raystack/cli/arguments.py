"""Command lines -> Arguments. Only argparse is imported, so that `--help` and a mistyped option answer at once."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

VERBS = {
    "train": "train a model, record it in MLflow and register it",
    "serve": "serve a model over HTTP (Open Inference Protocol v2)",
    "schema": "print the JSON Schema of a config, or its reference as Markdown",
}


@dataclass(frozen=True)
class Arguments:
    """What was typed, for any verb."""

    verb: str
    config: str = ""
    overrides: tuple[str, ...] = ()
    dry_run: bool = False
    json: bool = False
    verbose: bool = False
    resume: bool = False
    run: str | None = None
    detach: bool = False
    markdown: bool = False


def parse(verb: str | None, argv: Sequence[str] | None) -> Arguments:
    """Parse the arguments of `verb`, or of `raystack <verb> ...` where it is None. Ends the process with 2 on a mistake."""
    if verb is not None:
        parser = argparse.ArgumentParser(prog=f"python -m raystack.{verb}", description=f"{VERBS[verb][0].upper()}{VERBS[verb][1:]}.")
        _add(parser, verb)
        return _arguments(verb, parser, vars(parser.parse_intermixed_args(argv)))
    parser = argparse.ArgumentParser(prog="raystack", description="One config trains, tracks, registers and serves a model on Ray.")
    parser.add_argument("verb", choices=VERBS, metavar="verb", help="; ".join(f"{name}: {text}" for name, text in VERBS.items()))
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="arguments of the verb; `raystack <verb> --help` lists them")
    known = parser.parse_args(argv)
    return parse(known.verb, known.rest)


def _arguments(verb: str, parser: argparse.ArgumentParser, values: dict[str, Any]) -> Arguments:
    words = values.pop("words", None)
    if words is None:
        return Arguments(verb, **values)
    if not words or "=" in words[0]:
        parser.error("the path of a config comes first")
    values["resume"] = values.get("resume", False) or values.get("run") is not None
    return Arguments(verb, config=words[0], overrides=tuple(words[1:]), **values)


def _add(parser: argparse.ArgumentParser, verb: str) -> None:
    if verb == "schema":
        parser.add_argument("--markdown", action="store_true", help="print the reference as Markdown instead")
        return
    parser.usage = "%(prog)s [options] config.yaml [key=value ...]"
    help_words = "path of the YAML config, then overrides in Hydra's grammar, e.g. training.epochs=3 resources=inline"
    parser.add_argument("words", nargs="*", metavar="config.yaml key=value", help=help_words)
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    parser.add_argument("--json", action="store_true", help="with --dry-run: as JSON; else: the outcome as JSON on stdout")
    parser.add_argument("-v", "--verbose", action="store_true", help="show Ray's own output and tracebacks")
    if verb == "train":
        parser.add_argument("--resume", action="store_true", help="go on from the last good checkpoint of the experiment's newest run")
        parser.add_argument("--run", metavar="ID", help="the run to go on with; implies --resume")
    if verb == "serve":
        parser.add_argument("--detach", action="store_true", help="deploy to a running Ray cluster and leave")
