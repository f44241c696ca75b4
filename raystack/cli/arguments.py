"""Command lines -> Arguments. Only argparse is imported, so that `--help` and a mistyped option answer at once."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

VERBS = {
    "train": "train a model, record it in MLflow and register it",
    "serve": "serve a model over HTTP (Open Inference Protocol v2)",
    "checkpoint": "list, check and export the checkpoints of a run",
    "schema": "print the JSON Schema of a config, or its reference as Markdown",
}
MODULES = {"checkpoint": "checkpoints"}
"""Of the verbs whose module has another name: `raystack.checkpoint` is the room."""


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
    detach: bool = False
    markdown: bool = False
    action: str = ""
    url: str = ""
    out: str | None = None


def parse(verb: str | None, argv: Sequence[str] | None) -> Arguments:
    """Parse the arguments of `verb`, or of `raystack <verb> ...` where it is None. Ends the process with 2 on a mistake."""
    if verb is not None:
        prog = f"python -m raystack.{MODULES.get(verb, verb)}"
        parser = argparse.ArgumentParser(prog=prog, description=f"{VERBS[verb][0].upper()}{VERBS[verb][1:]}.")
        if verb == "checkpoint":
            _add_actions(parser)
            return Arguments(verb, **vars(parser.parse_args(argv)))
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
        parser.add_argument("--memory", action="store_true", help="measure the model, and plan each device's memory under every strategy")
        parser.add_argument("--resume", action="store_true", help="go on from the last good checkpoint of the experiment's newest run")
        parser.add_argument("--run", metavar="ID", help="the run to go on with; implies --resume")
    if verb == "serve":
        parser.add_argument("--detach", action="store_true", help="deploy to a running Ray cluster and leave")


def _add_actions(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="action", required=True)
    for name, text in (
        ("ls", "one line for each checkpoint, from its manifest and the sizes of its files"),
        ("verify", "read every file and compare its SHA-256 with the manifest; status 5 if anything is damaged"),
        ("export", "write full weights in safetensors, into the checkpoint or into a folder of their own; needs no cluster"),
    ):
        action = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        action.add_argument("url", help="a run's folder, its checkpoints folder, or one checkpoint; a path or an fsspec URL such as s3://")
        if name == "export":
            action.add_argument("--out", metavar="FOLDER", help="write a model folder there and leave the checkpoint as it is")
        else:
            action.add_argument("--json", action="store_true", help="as JSON on stdout")
        action.add_argument("-v", "--verbose", action="store_true", help="show tracebacks")
