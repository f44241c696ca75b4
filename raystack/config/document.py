"""The config's own description, made of its types and of the string under each field: nothing is written
twice.

Out: a JSON Schema for editors, and the text of docs/config.md.
"""

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from raystack import errors
from raystack.config.choices import GROUPS, Groups
from raystack.config.fields import parts
from raystack.config.run import RunConfig

Schema = dict[str, Any]

INTERPOLATION = {
    "type": "string",
    "pattern": r"\$\{.*\}|^\?\?\?$",
    "description": (
        "An interpolation, `${section.key}` or `${oc.env:NAME}`; or `???`, to be given by an override."
    ),
}
DEFAULTS = (
    "Choices from config groups, merged in this order; `_self_` is this file. A group beside this file wins"
    " over raystack's own."
)


def json_schema() -> Schema:
    """JSON Schema (draft 2020-12) of a config file, with the documentation of each key as its description.

    Nothing is required in it, because a group or an override may give what a file leaves out, and an
    interpolation may stand for any value.
    """
    definitions = _definitions()
    root = definitions.pop(RunConfig.__name__)
    root["properties"] = {"defaults": _defaults(), **root["properties"]}
    opened = {name: _partial(definition) for name, definition in definitions.items()}
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        **_partial(root),
        "$defs": {**opened, "Interpolation": INTERPOLATION},
    }


def _definitions() -> dict[str, Schema]:
    """The JSON Schema of every section and of RunConfig itself, by class name, in reading order."""
    whole = RunConfig.model_json_schema()
    inner = whole.pop("$defs")
    definitions = {}
    for model in _models():
        schema = whole if model is RunConfig else inner[model.__name__]
        texts = _docs(model)
        properties = {
            name: {**value, "description": texts[name]} for name, value in schema["properties"].items()
        }
        definitions[model.__name__] = {**schema, "properties": properties}
    return definitions


def _models() -> Iterator[type[BaseModel]]:
    seen: list[type[BaseModel]] = [RunConfig]
    for model in seen:
        yield model
        for field in model.model_fields.values():
            sections = [
                part
                for part in parts(field.annotation)
                if isinstance(part, type) and issubclass(part, BaseModel)
            ]
            seen.extend(section for section in sections if section not in seen)


def _docs(model: type[BaseModel]) -> dict[str, str]:
    """The string under each field of a section, inherited ones too, on one line, by the name in YAML."""
    found = {}
    for base in model.__bases__:
        found.update(_docs(base) if base is not BaseModel and issubclass(base, BaseModel) else {})
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(definition, ast.ClassDef)
    for field, text in zip(definition.body, definition.body[1:], strict=False):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                found[model.model_fields[name].alias or name] = " ".join(words.split())
    return found


def _partial(schema: Schema) -> Schema:
    """The schema of a mapping that may hold a part of its keys, each with a value or an interpolation."""
    properties = {
        name: value if name == "defaults" else _or_interpolation(value)
        for name, value in schema["properties"].items()
    }
    return {**{key: value for key, value in schema.items() if key != "required"}, "properties": properties}


def _or_interpolation(schema: Schema) -> Schema:
    """Of a union any branch may match: without its `kind`, which a group may give, a part of it fits
    several.
    """
    outer: Schema = {key: schema[key] for key in ("description", "default") if key in schema}
    return {**outer, "anyOf": [*_branches(schema), {"$ref": "#/$defs/Interpolation"}]}


def _branches(schema: Schema) -> list[Schema]:
    branches: list[Schema] | None = schema.get("anyOf") or schema.get("oneOf")
    return branches or [
        {key: value for key, value in schema.items() if key not in ("description", "default", "title")}
    ]


def _defaults() -> Schema:
    groups = Groups()
    choice = {
        group: {"anyOf": [{"enum": groups.choices(group)}, {"type": ["string", "null", "array"]}]}
        for group in groups.names()
    }
    entry = {"type": "object", "properties": choice, "minProperties": 1, "maxProperties": 1}
    return {
        "description": DEFAULTS,
        "type": "array",
        "items": {"anyOf": [{"const": "_self_"}, entry, {"type": "string"}]},
    }


def markdown() -> str:
    """The text of docs/config.md: a table per section, the config groups, the exit codes."""
    definitions = _definitions()
    lines = [
        "# Config reference",
        "",
        (
            "Generated by `make docs` from the types in `raystack/config/` and the files in `configs/`;"
            " change those, not this page."
        ),
        "",
        (
            "A config is one YAML file. Any key can be overridden on the command line (`training.epochs=3`),"
            " any value can be an"
        ),
        (
            "interpolation (`${experiment.name}`, `${oc.env:NAME}`), and unknown keys are refused. The"
            " environment is read in one"
        ),
        (
            "place, `configs/base.yaml`: `RAYSTACK_STORAGE` becomes `experiment.storage` and `RAY_ADDRESS`"
            " becomes `target.address`; there, empty is unset."
        ),
        "",
    ]
    for name, schema in definitions[RunConfig.__name__]["properties"].items():
        lines += _section(name, schema, definitions, "##")
    return "\n".join([*lines, *_groups(), *_exit_codes()]) + "\n"


def _section(path: str, schema: Schema, definitions: dict[str, Schema], heading: str) -> list[str]:
    """The table of the section at `path`, one per kind where it is a union, and then the sections inside of
    it.
    """
    lines: list[str] = []
    names = _sections(schema)
    for name in names:
        definition = definitions[name]
        title = (
            f"`{path}`"
            if len(names) == 1
            else f"`{path}`, kind {' or '.join(f'`{kind}`' for kind in _kinds(definition))}"
        )
        lines += [f"{heading} {title}", "", definition["description"], ""]
        lines += ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
        required = definition.get("required", [])
        for key, value in definition["properties"].items():
            default = "required" if key in required else _default(value, definitions)
            cells = (f"`{key}`", _type(value), default, value["description"])
            lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
        lines.append("")
        for key, value in definition["properties"].items():
            lines += _section(f"{path}.{key}", value, definitions, f"{heading}#")
            lines += _section(f"{path}.{key}[]", value.get("items", {}), definitions, f"{heading}#")
            lines += _section(f"{path}.{key}.NAME", _named(value), definitions, f"{heading}#")
    return lines


def _kinds(definition: Schema) -> list[str]:
    """Return the kinds of a section in a union."""
    kind = definition["properties"]["kind"]
    return list(kind.get("enum") or [kind["const"]])


def _named(schema: Schema) -> Schema:
    """Schema of a mapping's values; {} for anything else."""
    patterns = list(schema.get("patternProperties", {}).values())
    value: object = schema.get("additionalProperties") or next(iter(patterns), {})
    return value if isinstance(value, dict) else {}


def _sections(schema: Schema) -> list[str]:
    """Names of the sections that a key may hold; none if it holds a plain value."""
    return [branch["$ref"].rpartition("/")[2] for branch in _branches(schema) if "$ref" in branch]


def _default(schema: Schema, definitions: dict[str, Schema]) -> str:
    """Of a section that is left out, what differs from the same section with nothing in it."""
    default, names = schema.get("default"), _sections(schema)
    if default is None:
        return ""
    if names:
        whole = default if len(names) > 1 else {}
        fields = {
            key: value
            for name in names
            for key, value in definitions[name]["properties"].items()
            if "kind" not in whole or whole["kind"] in _kinds(definitions[name])
        }
        other = {key: value for key, value in default.items() if value != fields[key].get("default")}
        default = {**({"kind": whole["kind"]} if whole else {}), **other}
        if not default:
            return ""
    return f"`{json.dumps(default)}`"


def _type(schema: Schema) -> str:
    match schema:
        case {"anyOf": branches} | {"oneOf": branches}:
            return " or ".join(dict.fromkeys(_type(branch) for branch in branches))
        case {"$ref": _}:
            return "section"
        case {"const": value}:
            return f"`{json.dumps(value)}`"
        case {"enum": values}:
            return " or ".join(f"`{json.dumps(value)}`" for value in values)
        case {"prefixItems": items}:
            return f"list of {len(items)}: {', '.join(_type(item) for item in items)}"
        case {"type": "array", "items": item}:
            return f"list of: {_type(item)}"
        case {"type": "object", "additionalProperties": dict() as value}:
            return f"mapping to {_type(value)}"
        case {"type": "object", "patternProperties": dict() as patterns}:
            return f"mapping to {_type(next(iter(patterns.values())))}"
        case _ if not schema.keys() - {"title", "description", "default"}:
            return "any value"
    name = str(schema["type"])
    words = {"integer": "whole number", "string": "text", "boolean": "true or false", "object": "mapping"}
    return ", ".join([words.get(name, name), *_bounds(schema)]).replace(",", "", 1)


def _bounds(schema: Schema) -> Iterator[str]:
    for key, sign in (
        ("minimum", "≥"),
        ("exclusiveMinimum", ">"),
        ("maximum", "≤"),
        ("exclusiveMaximum", "<"),
    ):
        if key in schema:
            yield f"{sign} {schema[key]:g}" if isinstance(schema[key], float) else f"{sign} {schema[key]}"


def _groups() -> Iterator[str]:
    yield from ["## Config groups", ""]
    yield from [
        (
            "A group is a folder of alternatives. Choose in the file's `defaults` list or on the command line"
            " (`resources=gpu8`). A"
        ),
        "folder of the same name beside the config adds choices, and replaces those with the same file name.",
        "",
        "| group | choice | what it is |",
        "| --- | --- | --- |",
    ]
    groups = Groups()
    for group in groups.names():
        for choice in groups.choices(group):
            comments = [
                line[2:]
                for line in (GROUPS / group / f"{choice}.yaml").read_text(encoding="utf-8").splitlines()
                if line.startswith("# ")
            ]
            yield (
                f"| `{group}` | `{choice}` |"
                f" {next((text for text in comments if not text.startswith('@package')), '')} |"
            )
    yield ""


def _exit_codes() -> Iterator[str]:
    yield from ["## Exit codes", "", "| code | meaning |", "| --- | --- |", "| 0 | Done. |"]
    yield f"| {errors.RaystackError.exit_code} | A mistake in raystack itself; please report it. |"
    for error in errors.RaystackError.__subclasses__():
        yield f"| {error.exit_code} | {error.__name__}: {' '.join((inspect.getdoc(error) or '').split())} |"
    yield "| 130 | Interrupted by Ctrl-C or SIGTERM. |"
