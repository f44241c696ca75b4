"""Files to lint: single ones, folders, and standard input.

In: names, as on a command line. Out: documents, and a finding for each name that has no object of KubeRay.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from raystack.config.source import relative
from raystack.errors import ConfigError, Problem
from raystack.kuberay.lint.document import Document, carried, parse
from raystack.kuberay.lint.finding import Finding
from raystack.kuberay.lint.kinds import kind_findings
from raystack.kuberay.lint.rules.schema import NOTHING
from raystack.kuberay.lint.subject import subjects

STDIN = "-"
SUFFIXES = (".yaml", ".yml", ".json")


def read(path: Path) -> list[Document]:
    """Return the documents of a file, or of all in a folder. Raises ConfigError if it cannot be read."""
    return [document for file in _files(path) for document in _read(file, picked=file != path)]


def read_all(names: Sequence[str]) -> tuple[list[Document], list[Finding]]:
    """Return the documents behind all names, and what is said of names without an object of KubeRay."""
    found: list[Document] = []
    nothing: list[Finding] = []
    for name in names:
        path = Path("stdin" if name == STDIN else name)
        documents = parse(sys.stdin.read(), path) if name == STDIN else read(path)
        found += documents
        if not any(_looked_at(each, documents) for each in [*documents, *carried(documents)]):
            where = "stdin" if name == STDIN else relative(path)
            says = f"there is no object of KubeRay: {NOTHING.why}"
            nothing.append(Finding(NOTHING.id, NOTHING.level, where, "(file)", says, NOTHING.remedy))
    return found, nothing


def _looked_at(document: Document, beside: Sequence[Document]) -> bool:
    return any(True for _ in subjects(document, beside)) or bool(kind_findings(document))


def _files(path: Path) -> Iterator[Path]:
    """Yield the file, or the manifests in the folder and below, but for hidden ones."""
    if not path.is_dir():
        yield path
        return
    for file in sorted(path.rglob("*")):
        below = file.relative_to(path).parts
        if file.suffix in SUFFIXES and file.is_file() and not any(part.startswith(".") for part in below):
            yield file


def _read(file: Path, *, picked: bool) -> list[Document]:
    """Return the documents of a file; a file that was picked from a folder may be of another kind."""
    where = relative(file)
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(Problem(where, rule="the file is not UTF-8 text")) from None
    except OSError as error:
        raise ConfigError(Problem(where, rule=f"the file cannot be read: {error.strerror}")) from None
    try:
        return parse(text, file)
    except ConfigError:
        if picked and "ray.io/" not in text:
            return []
        if "{{" in text:
            rule, remedy = (
                "this is a template and no YAML",
                "lint what Helm makes of it: `helm template . | raystack lint -`",
            )
            raise ConfigError(Problem(where, rule=rule, remedy=remedy)) from None
        raise
