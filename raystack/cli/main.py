"""Command line -> verb -> exit status. `--help` and a mistyped word import nothing that is heavy."""

import argparse
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache
from importlib import import_module
from typing import get_args

from raystack import __version__, errors
from raystack.cli import verbs
from raystack.cli.verb import Actions, Group, Verb, add_options, read_options

DESCRIPTION = "One config trains, tracks, registers and serves a model on Ray."


def main(argv: Sequence[str] | None = None, verb: str | None = None) -> int:
    """Run a command line and return its exit status.

    `verb` is given if a module stands for one verb. A mistake in the command line ends the process with 2, as
    argparse does.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    chosen = verb or _verb(words)
    if chosen is None:
        parser().print_help()
        return 0
    prog = f"python -m raystack.{verb}" if verb else f"raystack {chosen}"
    return _run(known()[chosen], words if verb else words[1:], prog)


@cache
def known() -> Mapping[str, Verb | Actions]:
    """Return all verbs by name: one per file in `raystack/cli/verbs/`."""
    found = (
        import_module(f"{verbs.__name__}.{module.name}").VERB
        for module in pkgutil.iter_modules(verbs.__path__)
    )
    return {verb.name: verb for verb in found}


def parser(*, listed: bool = False) -> argparse.ArgumentParser:
    """Return the whole command line as one parser.

    Its help lists the verbs itself. With `listed` argparse knows them too, as shell completion needs.
    """
    top = argparse.ArgumentParser(
        prog="raystack",
        usage="raystack [-h] [--version] VERB ...",
        description=DESCRIPTION,
        epilog=f"{_listed()}\n\nraystack VERB --help shows the options of a verb.\n\n{_exit_codes()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"raystack {__version__}")
    if listed:
        inner = top.add_subparsers(metavar="VERB")
        for name, verb in known().items():
            _add_parser(inner.add_parser(name, help=verb.help), verb)
    return top


def _add_parser(own: argparse.ArgumentParser, verb: Verb | Actions) -> None:
    if isinstance(verb, Verb):
        add_options(own, verb.options)
        return
    if verb.otherwise is not None:
        add_options(own, verb.otherwise.options, positional=False)
    inner = own.add_subparsers(metavar="ACTION")
    for action in verb.actions:
        _add_parser(inner.add_parser(action.name, help=action.help), action)


def _verb(words: Sequence[str]) -> str | None:
    """Return the verb that was typed, or None.

    Ends the process on --help, --version or a mistake.
    """
    if not words:
        return None
    if words[0] in known():
        return words[0]
    if not words[0].startswith("-"):
        close = errors.nearest(words[0], known())
        hint = f"did you mean '{close}'?" if close else "`raystack --help` lists the verbs"
        parser().exit(2, f"error: there is no verb '{words[0]}'; {hint}\n")
    parser().parse_args(words[:1])
    return None


def _run(verb: Verb | Actions, words: Sequence[str], prog: str, actions: Sequence[Verb] = ()) -> int:
    """Run a verb. `actions` are listed in its help: other words that could follow it."""
    if isinstance(verb, Actions):
        return _run_action(verb, words, prog)
    own = argparse.ArgumentParser(
        prog=prog,
        usage=f"{prog} {verb.usage}" if verb.usage else None,
        description=_sentence(verb.help),
        epilog=f"{_listed_actions(actions)}{_exit_codes()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_options(own, verb.options)
    parsed, unknown = own.parse_known_intermixed_args(words)
    if unknown:
        own.error(_unrecognized(unknown, verb.options))
    options = read_options(verb.options, vars(parsed))

    # It follows the parsing, so that --help and a mistyped option do not wait for it.
    from raystack.cli.guard import execute

    return execute(verb, options)


def _unrecognized(words: Sequence[str], options: type) -> str:
    """Return the message about options that do not exist, without the words that follow them."""
    # argparse leaves over all words after an option that it does not know.
    flags = [word.partition("=")[0] for word in words if word.startswith("-")]
    known = [flag for each in fields(options) for flag in each.metadata.get("flags", ())]
    close = next((close for flag in flags if (close := errors.nearest(flag, known))), None)
    hint = f"; did you mean {close}?" if close else ""
    return f"unrecognized arguments: {' '.join(flags or words)}{hint}"


def _run_action(verb: Actions, words: Sequence[str], prog: str) -> int:
    actions = {action.name: action for action in verb.actions}
    if words and words[0] in actions:
        return _run(actions[words[0]], words[1:], f"{prog} {words[0]}")
    close = errors.nearest(words[0], actions) if words else None
    if verb.otherwise is not None and (close is None or "." in words[0]):  # the name of a config has a dot
        return _run(verb.otherwise, words, prog, verb.actions)
    own = argparse.ArgumentParser(
        prog=prog,
        usage=f"{prog} [-h] {{{','.join(actions)}}} ...",
        description=_sentence(verb.help),
        epilog=f"{_listed_actions(verb.actions)}{_exit_codes()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    own.parse_known_args(words[:1])
    hint = f"did you mean '{close}'?" if close else f"the actions are {', '.join(actions)}"
    missing = f"there is no action '{words[0]}'" if words else "an action is missing"
    own.exit(2, f"error: {prog}: {missing}; {hint}\n")
    return 2


def _listed_actions(actions: Sequence[Verb]) -> str:
    """Return a paragraph with an action a line; empty if there are none."""
    lines = [f"  {action.name:<12}{action.help}" for action in actions]
    return "\n".join(["actions:", *lines, "", ""]) if lines else ""


def _listed() -> str:
    """Return all verbs, each below its heading."""
    lines = []
    for group in get_args(Group):
        lines += ["", f"{group}:"]
        lines += [f"  {name:<12}{verb.help}" for name, verb in known().items() if verb.group == group]
    return "\n".join(lines).strip()


def exit_codes() -> dict[int, str]:
    """Return the meaning of each exit status: what to do next."""
    meanings = {kind.exit_code: _first_sentence(kind) for kind in errors.RaystackError.__subclasses__()}
    meanings |= {0: "Done.", 1: "A mistake in raystack itself; please report it."}
    meanings |= {130: "Interrupted by Ctrl-C or SIGTERM.", 141: "The reader of the output has gone."}
    return dict(sorted(meanings.items()))


def _exit_codes() -> str:
    return "exit codes:\n" + "\n".join(f"  {code:<4}{text}" for code, text in exit_codes().items())


def _first_sentence(kind: type[errors.RaystackError]) -> str:
    return " ".join((kind.__doc__ or "").split()).partition(". ")[0].rstrip(".") + "."


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
