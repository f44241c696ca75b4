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
TEMPLATE = "this is a template and no YAML"
HELM = "lint what Helm makes of it: `helm template . | raystack lint -`"


def read(path: Path) -> list[Document]:
    """Return the documents of a file, or of all in a folder. Raises ConfigError if one cannot be read."""
    return [document for file in _files(path) for document in _read(file, picked=file != path) or ()]


def read_all(names: Sequence[str]) -> tuple[list[Document], list[Finding]]:
    """Return the documents behind all names, and what is said of names without an object of KubeRay."""
    found = [_named(name) for name in names]
    return [each for documents, _ in found for each in documents], [
        each for _, said in found for each in said
    ]


def _named(name: str) -> tuple[list[Document], list[Finding]]:
    """Return the documents behind a name, and what is said of it if nothing can be looked at."""
    if name == STDIN:
        where, documents, templates = "stdin", parse(sys.stdin.read(), Path("stdin")), []
    else:
        path = Path(name)
        inside = {file: _read(file, picked=file != path) for file in _files(path)}
        where, templates = relative(path), [file for file, found in inside.items() if found is None]
        documents = [document for found in inside.values() for document in found or ()]
    said = [_nothing(relative(file), TEMPLATE, HELM) for file in templates]
    if not said and not any(_looked_at(each, documents) for each in [*documents, *carried(documents)]):
        said.append(_nothing(where, "there is no object of KubeRay", NOTHING.remedy))
    return documents, said


def _nothing(where: str, says: str, remedy: str) -> Finding:
    return Finding(NOTHING.id, NOTHING.level, where, "(file)", f"{says}: {NOTHING.why}", remedy)


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


def _read(file: Path, *, picked: bool) -> list[Document] | None:
    """Return the documents of a file; None of a template that was picked from a folder."""
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
            # Folders have other files, too.
            return []
        if "{{" not in text:
            raise
        if picked:
            return None
        raise ConfigError(Problem(where, rule=TEMPLATE, remedy=HELM)) from None
