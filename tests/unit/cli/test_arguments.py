"""Every verb's command line, and what is refused at once."""

import pytest

from raystack.cli.arguments import REMOTES, VERBS, Arguments, parse


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_help_that_says_what_it_does(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(None, [verb, "--help"])
    assert ended.value.code == 0
    assert VERBS[verb][1:20] in " ".join(capsys.readouterr().out.split())


def test_the_help_of_train_names_the_default_for_a_remote_target(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("train", ["--help"])
    assert "the default for target=job and kuberay" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (
            ["train", "a.yaml", "target=kuberay", "--wait", "--timeout", "60"],
            Arguments("train", config="a.yaml", overrides=("target=kuberay",), wait=True, timeout_s=60.0),
        ),
        (
            ["render", "a.yaml", "--as", "all", "-o", "x"],
            Arguments("render", config="a.yaml", form="all", out="x"),
        ),
        (
            ["lint", "a.yaml", "b.yaml", "--gate", "A"],
            Arguments("lint", files=("a.yaml", "b.yaml"), gates=("A",)),
        ),
        (["status"], Arguments("status")),
        (
            ["status", "rayjob/a", "-n", "team", "--watch"],
            Arguments("status", reference="rayjob/a", namespace="team", watch=True),
        ),
        (
            ["logs", "-f", "job/a", "--address", "u"],
            Arguments("logs", reference="job/a", follow=True, address="u"),
        ),
        (["scale", "raycluster/a", "4"], Arguments("scale", reference="raycluster/a", workers=4)),
        (
            ["connect", "rayjob/a", "--to", "mlflow"],
            Arguments("connect", reference="rayjob/a", to=("mlflow",)),
        ),
        (["gc", "--older", "5"], Arguments("gc", older_s=5.0, keep="raystack-logs")),
        (["doctor"], Arguments("doctor")),
        (
            ["doctor", "a.yaml", "resources=gpu8"],
            Arguments("doctor", config="a.yaml", overrides=("resources=gpu8",)),
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_was_typed_is_one_value(argv: list[str], expected: Arguments) -> None:
    assert parse(None, argv) == expected


@pytest.mark.parametrize(
    "argv",
    [
        ["train", "a.yaml", "--wait", "--detach"],
        ["logs"],
        ["scale", "rayjob/a", "many"],
        ["render", "a.yaml", "--as", "pod"],
        ["doctor", "a=b"],
    ],
    ids=" ".join,
)
def test_a_mistake_ends_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(None, argv)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_the_module_of_the_remote_verbs_knows_those_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(None, ["cancel", "job/a"], among=REMOTES).verb == "cancel"
    with pytest.raises(SystemExit):
        parse(None, ["train", "a.yaml"], among=REMOTES)
    assert "invalid choice: 'train'" in capsys.readouterr().err
