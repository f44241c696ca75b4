"""A YAML file as a tree of nodes with line numbers, and its errors.

OmegaConf reads the same file later. Anything that it would misread or fail on is rejected here, with its
line: numbers like `010`, keys that are not text, tags, aliases that multiply.
"""

import os
import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import yaml
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader
from omegaconf.errors import GrammarParseError

from raystack.errors import Problem

Key = tuple[str, ...]
Pairs = dict[str, tuple[yaml.Node, yaml.Node]]
"""The nodes of each key and its value in a mapping, by the key's text."""

CORE = "tag:yaml.org,2002:"
MAX_LEVELS = 30
"""Limit of nested lists and mappings. OmegaConf recurses over them and fails at about 60."""
MAX_REPEATED = 50_000
"""Limit of values that aliases or interpolations add to those written out."""
MAX_DIGITS = 100

YAML_WORDS = (
    ("'\\t'", "YAML is indented with spaces, and here is a tab", "replace the tab with spaces"),
    (
        "mapping values are not allowed",
        "this is not YAML: a ': ' is out of place",
        "check the indentation, or quote a value that holds ': '",
    ),
    ("constructor for the tag", "YAML tags such as !!python have no meaning here", "remove the tag"),
    ("<stream end>", "this is not YAML: the file ends inside a bracket or quote", "close it"),
    (
        "expected the node content",
        "this is not YAML: a value is missing or begins with a special character",
        "quote the value",
    ),
)
"""Parts of the parser's messages, with the rule and remedy to report for each."""


class _PlainLoader(get_yaml_loader()):  # type: ignore[misc]
    """OmegaConf's own loader, whose messages contain the words above."""


class _FastLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """libyaml's loader, if PyYAML has it, for the same tree in a tenth of the time."""

    yaml_implicit_resolvers = _PlainLoader.yaml_implicit_resolvers


@lru_cache(maxsize=64)
def _tree(text: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=_FastLoader)
    except yaml.YAMLError:
        return yaml.compose(text, Loader=_PlainLoader)


def read(file: Path) -> yaml.Node | None:
    """Return the file's tree of YAML nodes, or None for an empty file."""
    return _tree(file.read_text(encoding="utf-8"))


@lru_cache(maxsize=256)
def pairs(node: yaml.MappingNode) -> Pairs:
    """Return the entries of a mapping by the text of their keys.

    Entries merged by `<<` keep their own places; the mapping's own entries take precedence.
    """
    own: Pairs = {}
    merged: Pairs = {}
    for entry, value in node.value:
        if entry.tag == f"{CORE}merge":
            for part in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                merged = {**pairs(part), **merged}
        elif isinstance(entry, yaml.ScalarNode):
            own[entry.value] = (entry, value)
    return {**merged, **own}


def line_of(file: Path, key: Key) -> int | None:
    """Return the 1-based line of `key` in the file, or None if the file does not set it.

    For the empty key this is the line where the content begins.
    """
    node: yaml.Node | None = read(file)
    mark = None if node is None else node.start_mark
    for name in key:
        if isinstance(node, yaml.MappingNode):
            if (pair := pairs(node).get(name)) is None:
                return None
            entry, node = pair
        elif isinstance(node, yaml.SequenceNode) and is_index(name) and int(name) < len(node.value):
            entry = node = node.value[int(name)]
        else:
            return None
        mark = entry.start_mark
    return None if mark is None else mark.line + 1


def dotted(key: Key) -> str:
    """Return the key as messages show it, e.g. `training.batch.micro`."""
    return ".".join(short(name) or "''" for name in key)


def is_index(name: str) -> bool:
    """Return whether a part of a dotted key can be a list index."""
    return re.fullmatch(r"0|[1-9][0-9]{0,8}", name) is not None


def relative(file: Path) -> str:
    """Return the path for messages: relative if it lies below the working directory."""
    short = os.path.relpath(file)
    return str(file) if short.startswith("..") else short


def file_problems(file: Path, *, may_be_empty: bool = False) -> list[Problem]:
    """Return the file's YAML errors with their lines. Only the choice of a group may be empty."""
    try:
        text = file.read_text(encoding="utf-8")
        root = _tree(text)
    except yaml.MarkedYAMLError as error:
        return [marked(error, file)]
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        return [Problem(f"{relative(file)}:{line}", rule="the file is not UTF-8 text")]
    except yaml.reader.ReaderError as error:
        where = f"{relative(file)}:{text[: error.position].count(chr(10)) + 1}"
        return [Problem(where, rule="a control character has no place in YAML", remedy="remove it")]
    except RecursionError:
        return [_too_deep(relative(file))]
    except OSError as error:
        return [Problem(relative(file), rule=f"the file cannot be read: {error.strerror}")]
    begin = "write `key: value`" if may_be_empty else "start with `experiment: {name: ...}`"
    if root is None and not may_be_empty:
        return [Problem(relative(file), rule="the file is empty", remedy=begin)]
    found = _header_problems(file, text)
    if root is None:
        return found
    if not isinstance(root, yaml.MappingNode):
        got = "a list" if isinstance(root, yaml.SequenceNode) else str(root.value)
        where = f"{relative(file)}:{root.start_mark.line + 1}"
        return [*found, Problem(where, rule="a config is a mapping of sections", got=got, remedy=begin)]
    return [*found, *_Check(file).problems(root)]


def marked(error: yaml.MarkedYAMLError, file: Path) -> Problem:
    """Return the Problem of a YAML error, with its line."""
    mark = error.problem_mark or error.context_mark
    where = relative(file) if mark is None else f"{relative(file)}:{mark.line + 1}"
    what = error.problem or "it cannot be parsed"
    if what.startswith("but ") and error.context:
        what = f"{error.context}, {what}"
    for sign, rule, remedy in YAML_WORDS:
        if sign in what:
            return Problem(where, rule=rule, remedy=remedy)
    return Problem(where, rule=f"this is not YAML: {what}")


def header(text: str) -> list[tuple[int, list[str]]]:
    """Return the line and words of each directive above the content, e.g. `# @package name`."""
    # Hydra looks for directives in the first 512 characters only.
    found = []
    for number, line in enumerate(text[:512].splitlines(), start=1):
        if re.match(r"\s*#\s*@", line.removeprefix("\ufeff")):
            found.append((number, line.removeprefix("\ufeff").strip().lstrip("#").split()))
        elif line.strip():
            break
    return found


def _header_problems(file: Path, text: str) -> list[Problem]:
    found = []
    read_by_hydra = {number for number, _ in header(text)}
    for number, line in enumerate(text.splitlines(), start=1):
        if number not in read_by_hydra and re.match(r"#\s*@package\b", line):
            where, rule = f"{relative(file)}:{number}: # @package", "is read at the top of the file only"
            found.append(Problem(where, rule=rule, remedy="move it to the first line"))
    for number, words in header(text):
        where = f"{relative(file)}:{number}: # {words[0]}"
        if words[0] != "@package":
            rule, remedy = "a comment at the top that begins with @ is read by Hydra", "drop the @"
        elif text.startswith("\ufeff"):
            rule, remedy = "is not seen behind a byte-order mark", "save the file as UTF-8 without one"
        elif len(words) != 2 or not re.fullmatch(r"[\w$-]+(\.[\w$-]+)*", words[1]):
            rule = "takes the dotted key that the file belongs under"
            remedy = "write `# @package _global_`, or e.g. `# @package training.optimizer`"
        else:
            continue
        found.append(Problem(where, rule=rule, got=" ".join(words[1:]) or None, remedy=remedy))
    return found


def _too_deep(where: str) -> Problem:
    return Problem(where, rule=f"lists and mappings are more than {MAX_LEVELS} deep inside each other")


@dataclass
class _Check:
    """Check of the nodes of a file, which visits a node shared by aliases only once."""

    file: Path
    found: list[Problem] = field(default_factory=list)
    known: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Number of values with all aliases written out, and levels below, by node."""
    deep: bool = False

    def problems(self, root: yaml.MappingNode) -> list[Problem]:
        size, _ = self.visit(root, (), ())
        if size - len(self.known) > MAX_REPEATED and not self.found:
            rule = f"aliases stand for {size:,} values, and for {MAX_REPEATED:,} at most"
            self.found.append(Problem(relative(self.file), rule=rule, remedy="use fewer aliases"))
        return self.found

    def add(self, node: yaml.Node, key: Key, rule: str, remedy: str | None, got: str | None = None) -> None:
        where = f"{relative(self.file)}:{node.start_mark.line + 1}"
        if key:
            where += f": {dotted(key)}"
        self.found.append(Problem(where, rule=rule, got=short(got), remedy=remedy))

    def visit(self, node: yaml.Node, key: Key, above: tuple[int, ...]) -> tuple[int, int]:
        """`above` are the nodes that lead here. Returns what `known` keeps."""
        if id(node) in above:
            self.add(node, key, "the alias lies inside of what it stands for", "write the value out")
            return 1, 0
        size, levels = self.known.get(id(node), (0, 0))
        if len(above) + levels > MAX_LEVELS:
            if not self.deep:
                self.found.append(_too_deep(f"{relative(self.file)}:{node.start_mark.line + 1}"))
            self.deep = True
            return 1, 0
        if size == 0:
            size, levels = 1, 0
            for inner, name in self.inside(node, key):
                more, below = self.visit(inner, (*key, name), (*above, id(node)))
                size, levels = size + more, max(levels, below + 1)
            self.known[id(node)] = size, levels
        return size, levels

    def inside(self, node: yaml.Node, key: Key) -> list[tuple[yaml.Node, str]]:
        """What the node holds, with the name of each; and the problems of the node itself."""
        match node:
            case yaml.MappingNode(tag=tag) if tag == f"{CORE}map":
                return self.mapping(node, key)
            case yaml.SequenceNode(tag=tag) if tag == f"{CORE}seq":
                return [(value, str(index)) for index, value in enumerate(node.value)]
            case yaml.ScalarNode():
                self.scalar(node, key)
            case _:
                self.add(node, key, "YAML tags such as !!python have no meaning here", "remove the tag")
        return []

    def mapping(self, node: yaml.MappingNode, key: Key) -> list[tuple[yaml.Node, str]]:
        first: dict[str, int] = {}
        for entry, value in node.value:
            if not self.is_name(entry, key):
                continue
            if entry.tag == f"{CORE}merge" and not _can_be_merged(value):
                self.add(entry, (*key, "<<"), "merges mappings only", 'put it in quotes: "<<"')
            if entry.value in first:
                rule = f"the key is given twice, first on line {first[entry.value]}"
                self.add(entry, (*key, entry.value), rule, "drop one of them")
            first.setdefault(entry.value, entry.start_mark.line + 1)
        return [(value, str(entry.value)) for entry, value in node.value]

    def is_name(self, entry: yaml.Node, key: Key) -> bool:
        """Return whether a key is text and was written as text."""
        if not isinstance(entry, yaml.ScalarNode):
            what = "a list" if isinstance(entry, yaml.SequenceNode) else "a mapping"
            self.add(entry, key, "a key is text", "check the brackets and the ? in this line", what)
            return False
        if entry.tag in (f"{CORE}str", f"{CORE}merge"):
            if is_unicode(entry.value):
                return True
            self.add(entry, key, "half of a surrogate pair is no text", "write the character itself")
            return False
        quoted = f"put it in quotes: {_in_quotes(entry.value)}" if entry.value else "give the key a name"
        self.add(entry, key, "a key is text", quoted, _read_as(entry))
        return False

    def scalar(self, node: yaml.ScalarNode, key: Key) -> None:
        tag, text = node.tag.removeprefix(CORE), str(node.value)
        plain = not node.style
        if plain and (tag, text) in (("value", "="), ("merge", "<<")):
            self.add(
                node, key, f"{text} alone has a meaning of its own in YAML", f'put it in quotes: "{text}"'
            )
        elif tag not in ("str", "int", "float", "bool", "null"):
            self.add(node, key, "YAML tags such as !!python have no meaning here", "remove the tag")
        elif plain and re.fullmatch(r"[-+]?0[0-9_]+|[-+]?[0-9_]+(:[0-5]?[0-9])+(\.[0-9_]*)?", text):
            self.trap(node, key)
        elif tag in ("int", "float", "bool", "null") and (wrong := _misread(tag, text)) is not None:
            self.add(node, key, *wrong, text)
        elif not is_unicode(text):
            self.add(node, key, "half of a surrogate pair is no text", "write the character itself")
        elif "${" in text and not _can_be_followed(text):
            remedy = "write ${section.key} or ${oc.env:NAME}; a plain '${' is written \\${"
            self.add(node, key, "the interpolation cannot be read", remedy, text)

    def trap(self, node: yaml.ScalarNode, key: Key) -> None:
        """`010`, `08` and `1:30`."""
        text, quoted = str(node.value), f"{_in_quotes(node.value)} for text"
        if ":" in text:
            if node.tag != f"{CORE}str":
                number = _read_as(node)
                self.add(node, key, f"YAML reads it as {number}", f"write {number}, or {quoted}", text)
            return
        digits = text.lstrip("+-").lstrip("0_") or "0"
        number = f"write {'-' if text.startswith('-') else ''}{short(digits)} for a number, {quoted}"
        self.add(node, key, f"begins with 0, and YAML reads it as {_read_as(node)}", number, text)


def _can_be_merged(value: yaml.Node) -> bool:
    parts = value.value if isinstance(value, yaml.SequenceNode) else [value]
    return all(isinstance(part, yaml.MappingNode) for part in parts)


def _misread(tag: str, text: str) -> tuple[str, str] | None:
    """Rule and remedy where a scalar is no value of its type, be that by a tag or by its look."""
    quote = "put it in quotes if it is text"
    kinds = {"int": "a whole number", "float": "a number", "bool": "true or false", "null": "null"}
    if tag in ("int", "float") and len(text) > MAX_DIGITS:
        return f"a number has at most {MAX_DIGITS} digits", quote
    try:
        value = _value(tag, text)
    except (ValueError, KeyError, IndexError, OverflowError):
        return f"should be {kinds[tag]}", "remove the tag"
    if value in (float("inf"), float("-inf")) and "inf" not in text.lower():
        return "the number is too large", quote
    if tag == "null" and text not in ("", "~", "null", "Null", "NULL"):
        return "should be null", "remove the tag"
    return None


def _value(tag: str, text: str) -> object:
    """Of a scalar, by PyYAML's own constructors."""
    loader = yaml.SafeLoader("")
    return loader.construct_object(yaml.ScalarNode(f"{CORE}{tag}", text))


def _read_as(node: yaml.ScalarNode) -> str:
    """What YAML makes of a scalar, in words."""
    tag = node.tag.removeprefix(CORE)
    match tag:
        case "bool":
            return f"{node.value}, which YAML reads as {str(_BOOLEANS.get(node.value.lower(), '')).lower()}"
        case "null":
            return "null"
        case "str":
            return "text"
        case "int" | "float" if _misread(tag, node.value) is None:
            return str(_value(tag, node.value))
    return short(node.value) or tag


_BOOLEANS = yaml.SafeLoader.bool_values


def is_unicode(text: str) -> bool:
    """Return whether the text can be encoded as UTF-8."""
    return not re.search("[\ud800-\udfff]", text)


def _can_be_followed(text: str) -> bool:
    try:
        OmegaConf.create([text])
    except (GrammarParseError, RecursionError):
        return False
    return True


def _in_quotes(text: str) -> str:
    return f'"{short(text)}"'


def short(text: str | None, most: int = 80) -> str | None:
    """As a message shows it: on one line, and not too long."""
    if text is None:
        return None
    text = text.encode("utf-8", "backslashreplace").decode()
    line = re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]", lambda found: repr(found[0])[1:-1], text)
    return line if len(line) <= most else f"{line[: most - 3]}..."
