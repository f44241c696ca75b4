# ruff: noqa: E501 (a table)
"""The resolved config is written beside every run: it loads back equal and holds no secret."""

from pathlib import Path

import pytest

from raystack.config import RunConfig, dump, load
from raystack.config.experiment import Experiment
from raystack.config.task import Task
from raystack.config.training import Batch, Training

ROOT = Path(__file__).parents[3]

STRINGS = [
    "plain", "${experiment.name}", r"\${x}", r"\\${x}", "a $ {b} $${c}", "'single'", '"double"', "it's \"both\"", "ünïcödé 日本 🙂",
    "true", "off", "null", "~", "1e-3", "1_000", "0x10", "1:30", "2026-01-01", ".nan", " leading", "trailing ", "two\nlines\n", "",
    "# no comment", "key: value", "- item", "[a, b]", "{a: b}", "*alias", "&anchor", "!tag", "%", "@", "`", "\\", "\t", "secret:env:HOME",
]  # fmt: skip


def test_a_dump_loads_back_equal(tmp_path: Path) -> None:
    config = RunConfig(
        experiment=Experiment(
            name="demo", storage=str(tmp_path), tags={f"n{index}": text for index, text in enumerate(STRINGS)}
        ),
        task=Task(
            entry="some.package:Demo",
            args={"strings": STRINGS, "nested": {"a": [1, 2.5, None, True, {"b": []}]}},
        ),
        training=Training(steps=1, batch=Batch.model_validate({"global": 8})),
    )
    file = tmp_path / "config.yaml"
    file.write_text(dump(config), encoding="utf-8")
    assert load(file) == config
    assert dump(load(file)) == file.read_text(encoding="utf-8")
    assert "ünïcödé 日本" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "example", sorted(ROOT.glob("examples/*/config.yaml")), ids=lambda file: file.parent.name
)
def test_a_dump_means_the_same_on_another_machine(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load(example)
    (tmp_path / "resolved.yaml").write_text(dump(config), encoding="utf-8")
    monkeypatch.setenv("RAYSTACK_STORAGE", "/elsewhere")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert load(tmp_path / "resolved.yaml") == config


def test_secrets_stay_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "token"
    secret.write_text("hunter2")
    monkeypatch.setenv("MLFLOW_PASSWORD", "hunter2")
    file = tmp_path / "config.yaml"
    file.write_text(f"""\
experiment: {{name: demo}}
task: {{entry: "task:Demo", args: {{token: "secret:file:{secret}"}}}}
training: {{steps: 1, batch: {{global: 8}}}}
tracking: {{username: me, password: "secret:env:MLFLOW_PASSWORD"}}
""")
    config = load(file)
    file.write_text(dump(config), encoding="utf-8")
    assert load(file) == config
    for text in (dump(config), str(config), repr(config), str(config.model_dump()), config.model_dump_json()):
        assert "secret:env:MLFLOW_PASSWORD" in text
        assert "hunter2" not in text
