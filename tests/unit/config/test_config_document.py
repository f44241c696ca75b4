"""The reference page and the editors' schema say what the code does."""

from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from raystack.config import dump, load
from raystack.config.choices import GROUPS
from raystack.config.document import json_schema, markdown

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def schema() -> Any:
    """A validator of the schema."""
    jsonschema.Draft202012Validator.check_schema(json_schema())
    return jsonschema.Draft202012Validator(json_schema())


def test_the_reference_is_fresh() -> None:
    page = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    assert page == markdown(), "docs/config.md is not what the types say: run `make docs`"


def test_the_reference_names_every_choice_with_its_meaning() -> None:
    lines = markdown().splitlines()
    for file in GROUPS.glob("*/*.yaml"):
        row = next(line for line in lines if line.startswith(f"| `{file.parent.name}` | `{file.stem}` |"))
        assert len(row.split("|")[3].strip()) > 10, f"{file} has no comment that says what it is"


def test_every_key_has_a_description() -> None:
    root = json_schema()
    sections = [root, *(section for section in root["$defs"].values() if "properties" in section)]
    assert all(value.get("description") for section in sections for value in section["properties"].values())


@pytest.mark.parametrize(
    "file", sorted(ROOT.glob("examples/*/config.yaml")), ids=lambda file: file.parent.name
)
def test_the_schema_accepts_files_and_resolved_configs(file: Path, schema: Any) -> None:
    schema.validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    schema.validate(yaml.safe_load(dump(load(file))))


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ("serving: {port: '${oc.decode:${oc.env:PORT}}'}", True),
        ("training: {steps: '???'}", True),
        ("training: {optimizer: {lr: 0.1}}", True),
        ("defaults: [resources: gpu8, optional tracking: mine, common, _self_]", True),
        ("defaults: {resources: gpu8}", False),
        ("serving: {port: http}", False),
        ("training: {optimizer: {kind: adamv}}", False),
        ("training: {epoch: 1}", False),
        ("tracking: {password: hunter2}", False),
        ("strategy: ddp", False),
    ],
)
def test_the_schema_tells_good_from_bad(text: str, accepted: bool, schema: Any) -> None:
    assert schema.is_valid(yaml.safe_load(text)) is accepted
