"""YAML documents with line numbers.

In: a file, or rendered manifests. Out: a list of Documents.

Objects in a `List` become documents of their own, and so do those in an object of another kind such as an
AppWrapper, those in a ConfigMap for a CronJob or Job, and the trial of an Experiment of Katib.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from raystack.config.source import marked, relative
from raystack.errors import ConfigError, Problem
from raystack.kuberay.lint.node import Keys, Node
from raystack.plan.kuberay.facts import RAY_KINDS

Lines = Mapping[Keys, int]


@dataclass(frozen=True)
class Document:
    """Object of a YAML file or a rendered manifest."""

    value: dict[str, Any]
    file: str
    """File, or `RayJob/name` of a manifest without one."""
    line: int = 0
    """1-based line on which it begins; 0 without a file."""
    prefix: Keys = ()
    """Path to it in its file: `items`, 0 in a List, or `data`, `job.yaml` in a ConfigMap."""
    lines: Lines = field(default_factory=dict, repr=False, compare=False)
    """Line of every key and list item, by its path in the file."""

    @property
    def root(self) -> Node:
        """Node of the whole object."""
        return Node(self.value, self.prefix)

    @property
    def kind(self) -> str:
        """Kind, e.g. `RayJob`."""
        return self.root["kind"].text

    @property
    def name(self) -> str:
        """`metadata.name`, or an empty string."""
        return self.root["metadata"]["name"].text

    def where(self, keys: Keys) -> str:
        """Return `file:line` of the path, or of its nearest parent in the file."""
        for length in range(len(keys), -1, -1):
            if (line := self.lines.get(keys[:length])) is not None:
                return f"{self.file}:{line}"
        return f"{self.file}:{self.line}" if self.line else self.file


def parse(text: str, path: Path) -> list[Document]:
    """Return all documents of a YAML text from this file. Raises ConfigError if it cannot be read."""
    file = relative(path)
    try:
        return list(_parse(text, file))
    except yaml.MarkedYAMLError as error:
        raise ConfigError(marked(error, path)) from None
    except yaml.YAMLError as error:
        raise ConfigError(Problem(file, rule=f"this is not YAML: {str(error).splitlines()[0]}")) from None
    except RecursionError:
        raise ConfigError(
            Problem(file, rule="the file is nested too deeply, or an alias lies inside of what it stands for")
        ) from None


def documents(manifests: Iterable[dict[str, Any]]) -> list[Document]:
    """Return manifests as documents without a file."""
    roots = [Document(manifest, _label(manifest)) for manifest in manifests]
    return [inner for document in roots for inner in _opened(document)]


class _Loader(yaml.SafeLoader):
    """Loader that keeps dates as text, as Kubernetes does, and rejects duplicate keys, as `kubectl` does."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # PyYAML's own way to say which plain words are what
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        # PyYAML would silently keep the last of several values of a key.
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value!r} is given twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _parse(text: str, file: str) -> Iterator[Document]:
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            value = None if node is None else loader.construct_document(node)
            if node is None or value is None:
                continue
            line = node.start_mark.line + 1
            if not isinstance(value, dict):
                raise ConfigError(
                    Problem(
                        f"{file}:{line}",
                        rule="a document is a mapping",
                        remedy="start with apiVersion and kind",
                    )
                )
            yield from _opened(Document(value, file, line, lines=dict(_lines(node, ()))))
    finally:
        loader.dispose()


def _lines(node: yaml.Node, keys: Keys) -> Iterator[tuple[Keys, int]]:
    if isinstance(node, yaml.MappingNode):
        for entry, value in node.value:
            if isinstance(entry, yaml.ScalarNode):
                inner = (*keys, entry.value)
                yield inner, entry.start_mark.line + 1
                yield from _lines(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            inner = (*keys, index)
            yield inner, value.start_mark.line + 1
            yield from _lines(value, inner)


def _opened(document: Document) -> Iterator[Document]:
    """Yield the document itself, and those it contains."""
    if isinstance(document.root["items"].value, list) and document.kind.endswith("List"):
        common = {"apiVersion": document.root["apiVersion"].value, "kind": document.kind.removesuffix("List")}
        for item in document.root["items"].items:
            if isinstance(item.value, dict):
                # Items of a RayClusterList say neither.
                value = item.value if document.kind == "List" else {**common, **item.value}
                yield from _opened(_below(document, item.keys, value))
        return
    yield document
    if document.kind == "Experiment":
        yield from _trial(document)
    elif document.kind not in (*RAY_KINDS, "CustomResourceDefinition"):
        yield from _wrapped(document, document.root)


def _wrapped(document: Document, node: Node) -> Iterator[Document]:
    """Yield the Ray objects in an object of another kind, such as an AppWrapper or a ManifestWork."""
    for inner in [*node.fields.values(), *node.items]:
        if inner["apiVersion"].text.startswith("ray.io/") and inner["kind"].text:
            yield _below(document, inner.keys, inner.value)
        else:
            yield from _wrapped(document, inner)


def _below(document: Document, keys: Keys, value: dict[str, Any]) -> Document:
    line = document.lines.get(keys, document.line)
    return replace(document, value=value, line=line, prefix=keys)


def _trial(document: Document) -> Iterator[Document]:
    """Yield the trial of an Experiment, under the name that Katib will make up."""
    trial = document.root.at("spec", "trialTemplate", "trialSpec")
    if not isinstance(trial.value, dict):
        return
    given = trial["metadata"].value
    metadata = {**(given if isinstance(given, dict) else {}), "generateName": f"{document.name}-"}
    yield _below(document, trial.keys, {**trial.value, "metadata": metadata})


def carried(documents: Sequence[Document]) -> list[Document]:
    """Return the Ray objects in ConfigMaps that a CronJob or Job creates."""
    pods = [document.root["spec"] for document in documents if document.kind == "Job"]
    pods += [
        document.root.at("spec", "jobTemplate", "spec")
        for document in documents
        if document.kind == "CronJob"
    ]
    mounted = {found.text for pod in pods for found in pod.find("template.spec.volumes.*.configMap.name")}
    maps = [document for document in documents if document.kind == "ConfigMap" and document.name in mounted]
    return [
        inner
        for document in maps
        for text in document.root["data"].fields.values()
        for inner in _inside(document, text)
    ]


def _inside(document: Document, text: Node) -> Iterator[Document]:
    """Yield the Ray objects in a value of a ConfigMap; anything unparseable is another format."""
    if "ray.io/v1" not in text.text:
        return
    try:
        inside = list(_parse(text.text, document.file))
    except (yaml.YAMLError, ConfigError):
        return
    start = document.lines.get(text.keys, 0)
    for inner in inside:
        if inner.root["apiVersion"].text.startswith("ray.io/"):
            lines = {(*text.keys, *keys): start + line for keys, line in inner.lines.items()} if start else {}
            line = start + inner.line if start else 0
            yield replace(inner, prefix=(*text.keys, *inner.prefix), line=line, lines=lines)


def _label(manifest: Mapping[str, Any]) -> str:
    root = Node(manifest)
    name = root["metadata"]["name"].text or root["metadata"]["generateName"].text
    return f"{root['kind'].text or 'object'}/{name}"
