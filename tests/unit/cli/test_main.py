"""Every verb's command line: its help, what is typed as one value, and what is refused at once."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from raystack import __version__
from raystack.cli import main as command_line
from raystack.cli import verbs
from raystack.cli.main import known, main
from raystack.cli.page import markdown
from raystack.cli.verb import Actions, Verb
from raystack.errors import ConfigError

ROOT = Path(__file__).parents[3]
SINGLE = {
    name: single
    for name, verb in known().items()
    if (single := verb if isinstance(verb, Verb) else verb.otherwise) is not None
}


def typed(argv: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The options that the verb is run with."""
    found = []
    verb = SINGLE[argv[0]]
    kept = Verb(verb.name, verb.help, verb.options, lambda options, _: found.append(options), verb.group)
    monkeypatch.setattr(command_line, "known", lambda: {argv[0]: kept})
    assert main(argv) == 0
    return found[0]


@pytest.mark.parametrize("name", known())
def test_every_verb_has_a_help_with_the_exit_codes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert known()[name].help[1:20] in " ".join(shown.split())
    assert "  75  The run stopped where it was asked to" in shown


def test_raystack_alone_shows_its_verbs_and_ends_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name:<12}{verb.help}" in shown for name, verb in known().items())
    assert "  3   The config is well formed" in shown


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"raystack {__version__}\n"


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["trian", "a.yaml"], "error: there is no verb 'trian'; did you mean 'train'?"),
        (["statsu"], "did you mean 'status'?"),
        (["zzz"], "error: there is no verb 'zzz'; `raystack --help` lists the verbs"),
        (["checkpoint", "lss"], "there is no action 'lss'; did you mean 'ls'?"),
        (["tune", "lss"], "there is no action 'lss'; did you mean 'ls'?"),
        (["checkpoint"], "an action is missing; the actions are ls, verify, export"),
        (["train", "a.yaml", "--wait", "--detach"], "not allowed with argument"),
        (["train", "a.yaml", "--wait", "--timeout", "-5"], "should be 0 seconds or more (got -5)"),
        (["logs"], "KIND/NAME"),
        (["scale", "rayjob/a", "many"], "invalid count value: 'many'"),
        (["scale", "rayjob/a", "-1"], "should be 0 or more (got -1)"),
        (["render", "a.yaml", "--as", "pod"], "invalid choice: 'pod'"),
        (["train", "a.yaml", "--mem"], "unrecognized arguments: --mem"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_ends_with_2(argv: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (
            ["train", "a.yaml", "target=kuberay", "--wait", "--timeout", "60"],
            {"words": ("a.yaml", "target=kuberay"), "wait": True, "timeout_s": 60.0},
        ),
        (["train", "--resume", "a.yaml", "--json", "x=1"], {"words": ("a.yaml", "x=1"), "resume": True}),
        (
            ["tune", "-m", "a.yaml", "x=1,2", "--resume"],
            {"words": ("a.yaml", "x=1,2"), "multirun": True, "resume": True},
        ),
        (["tune", "ls.yaml"], {"words": ("ls.yaml",), "dry_run": False}),
        (["render", "a.yaml", "--as", "all", "-o", "x"], {"form": "all", "out": "x"}),
        (["lint", "a.yaml", "b.yaml", "--gate", "A"], {"files": ("a.yaml", "b.yaml"), "gates": ("A",)}),
        (["status"], {"reference": "", "watch": False}),
        (
            ["status", "rayjob/a", "-n", "team", "--watch"],
            {"reference": "rayjob/a", "namespace": "team", "watch": True},
        ),
        (["logs", "-f", "job/a", "--address", "u"], {"follow": True, "address": "u"}),
        (["scale", "raycluster/a", "4"], {"reference": "raycluster/a", "workers": 4}),
        (["connect", "rayjob/a", "--to", "mlflow"], {"to": ("mlflow",), "mlflow": None}),
        (["gc", "--older", "5"], {"older_s": 5.0, "keep": None}),
        (["doctor"], {"words": ()}),
        (["doctor", "a.yaml", "resources=gpu8"], {"words": ("a.yaml", "resources=gpu8")}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_was_typed_is_one_value(
    argv: list[str], expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = typed(argv, monkeypatch)
    assert {name: getattr(options, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["train", "x=1"], "config.yaml: the path of a config comes first"),
        (["tune"], "config.yaml: the path of a config comes first"),
        (["tune", "show", "a.yaml", "--storage", "x"], "--storage: the config says where; drop it"),
        (["status", "rayjob/a", "--timeout", "5"], "--timeout: bounds --watch; add --watch, or drop it"),
        (["status", "--watch"], "--watch: one thing is watched"),
        (["status", "rayjob/a", "--address", "x"], "--address: has no effect on rayjob/a (got x)"),
        (["logs", "job/a", "-n", "x"], "--namespace: has no effect on job/a (got x); drop it"),
        (["connect", "rayjob/a", "--mlflow", "x"], "--mlflow: names what --to mlflow reaches"),
        (["gc", "--keep", "x"], "--keep: says where --yes keeps logs"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_option_without_effect_is_refused(
    argv: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == ConfigError.exit_code
    assert says in capsys.readouterr().err


def test_an_option_that_does_not_exist_is_told_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "config.yaml", "training.epochs=1", "--resum", "experiment.name=b"])
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "raystack train: error: unrecognized arguments: --resum; did you mean --resume?"
    assert ended.value.code == 2


@pytest.mark.parametrize("verb", ["train", "serve", "tune", "render"])
def test_a_namespace_is_of_kubernetes(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, str(ROOT / "tests/tiny/config.yaml"), "-n", "team"]) == ConfigError.exit_code
    assert (
        capsys.readouterr().err == "error: --namespace: has no effect on target=local (got team); drop it\n"
    )


def test_every_verb_that_shows_something_has_json() -> None:
    actions = [each for verb in known().values() if isinstance(verb, Actions) for each in verb.actions]
    without = {
        verb.name
        for verb in [*SINGLE.values(), *actions]
        if "json" not in {each.name for each in fields(verb.options)}
    }
    assert without == {"schema", "completion"}, "the one prints JSON, the other a script"


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_a_completion_script_knows_every_verb(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in known())


COMPLETE = r"""
source <(python -m raystack completion bash)
words() {
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    $(complete -p raystack | sed 's/.*-F \([^ ]*\).*/\1/')
    echo "${COMPREPLY[@]}"
}
words raystack tra
words raystack train --dry
words raystack tune sho
words raystack tune --multi
words raystack tune best --tri
"""


def test_bash_completes_verbs_and_options() -> None:
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    done = subprocess.run(
        ["bash", "-c", COMPLETE], cwd=ROOT, env={"PATH": path}, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["train", "--dry-run", "show", "--multirun", "--trial"], done.stderr


def test_the_page_of_the_command_line_is_what_the_verbs_say() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert page == markdown(), "docs/cli.md is not what the verbs say: run `make docs`"


NEW_VERB = '''
"""`raystack hello NAME`."""

from dataclasses import dataclass

from raystack.cli.options import Verbose
from raystack.cli.verb import Verb, argument


@dataclass(frozen=True, kw_only=True)
class Options(Verbose):
    name: str = argument(metavar="NAME", help="whom to greet")


def run(options, terminal):
    terminal.text(f"hello {options.name}\\n")


VERB = Verb(name="hello", help="greet somebody", options=Options, run=run, group="files")
'''


def test_a_new_file_is_a_new_verb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "hello.py").write_text(NEW_VERB)
    monkeypatch.setattr(verbs, "__path__", [*verbs.__path__, str(tmp_path)])
    known.cache_clear()
    try:
        assert main(["hello", "world"]) == 0
        assert main([]) == 0
    finally:
        known.cache_clear()
        sys.modules.pop("raystack.cli.verbs.hello", None)
    shown = capsys.readouterr().out
    assert shown.startswith("hello world\n")
    assert "  hello       greet somebody" in shown
