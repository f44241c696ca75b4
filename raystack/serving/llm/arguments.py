"""The arguments that the vLLM of this environment has, read from its source: to import it takes seconds."""

import ast
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

from raystack.errors import ConfigError, LaunchError, Problem, nearest

FILES = {
    "engine/arg_utils.py": ("EngineArgs", "AsyncEngineArgs"),
    "entrypoints/launchers/cli_args.py": ("BaseFrontendArgs", "FrontendArgs"),
}
"""Files of vLLM, with the classes whose fields are arguments."""


def check_installed() -> Path:
    """Return the folder of vLLM's package; raise LaunchError if it is not installed."""
    found = find_spec("vllm")
    if found is None or found.origin is None:
        rule = "a language model needs vLLM, which is not installed"
        remedy = "pip install 'raystack-ml[vllm]'; without GPUs as docs/llm.md says"
        raise LaunchError(Problem("serving.kind", rule=rule, got="llm", remedy=remedy))
    return Path(found.origin).parent


def check_known(given: Iterable[str], package: Path) -> None:
    """Raise ConfigError for arguments that this vLLM does not have, with the nearest name."""
    known = set(_known(package))
    # Another layout than that of the version this was written for: vLLM itself will say what it lacks.
    unknown = [name for name in given if name not in known] if known else []
    problems = []
    for name in unknown:
        close = nearest(name, known)
        remedy = f"did you mean '{close}'?" if close else "see vLLM's engine arguments"
        where = f"serving.llm.engine_kwargs.{name}"
        problems.append(Problem(where, rule="vLLM has no such argument", remedy=remedy))
    if problems:
        raise ConfigError(problems)


def _known(package: Path) -> Iterator[str]:
    for name, classes in FILES.items():
        file = package / name
        tree = ast.parse(file.read_text(encoding="utf-8")) if file.is_file() else ast.Module([], [])
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name in classes:
                yield from _fields(node)


def _fields(node: ast.ClassDef) -> Iterator[str]:
    for each in node.body:
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
            yield each.target.id
