"""What Ray does not document is used through one door, and is there in the version that is installed."""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import ray

from raystack.ray_internals import variables

PACKAGE = Path(__file__).parents[2] / "raystack"
DOOR = PACKAGE / "ray_internals"
PRIVATE = re.compile(r"ray\.(.*\.)?(_\w+)|ray\.core\.generated|ray\.train\.v2\b")
"""`ray.train.v2` has what is public under `ray.train` too."""
GROUPS = ("core", "haproxy", "output", "start", "train", "serve")


def imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(module, name) of everything that is imported from Ray."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ray":
            yield from ((str(node.module), alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] == "ray")


def outside() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if DOOR not in path.parents]


def told(what: str, names: list[str]) -> str:
    return "\n  ".join([f"Ray {ray.__version__} {what}:", *names])


def missing(module: str, name: str) -> str | None:
    """What is not there."""
    try:
        found = importlib.import_module(module)
        if name and not hasattr(found, name):
            importlib.import_module(f"{module}.{name}")
    except ImportError as error:
        return f"{module}.{name}: {error}"
    return None


def test_serve_asks_for_nothing_after_the_connection_has_ended() -> None:
    from ray.serve._private.long_poll import LongPollClient

    from raystack.ray_internals import start

    assert LongPollClient.__module__ == start.POLLING
    client = LongPollClient.__new__(LongPollClient)
    client.is_running = True
    start.poll_no_more()
    assert not client.is_running


@pytest.mark.parametrize("verbose", [False, True])
def test_what_ray_tells_of_a_lost_worker_is_not_on_stdout(
    verbose: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    from ray._private import worker

    from raystack.ray_internals.output import off_stdout

    told = {"lines": [f"A worker died, {verbose}"], "pid": "raylet", "is_err": False}
    with off_stdout(verbose=verbose):
        worker.print_to_stdstream(told, ignore_prefix=False)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert ("A worker died" in printed.err) is verbose
    # Ray leaves out what it has printed before.
    worker.print_to_stdstream({**told, "lines": [f"outside of a run, {verbose}"]}, ignore_prefix=False)
    assert "outside of a run" in capsys.readouterr().out


@pytest.mark.parametrize("group", GROUPS)
def test_every_private_name_is_in_the_version_that_is_installed(group: str) -> None:
    tree = ast.parse((DOOR / f"{group}.py").read_text())
    lacks = [text for module, name in imports(tree) if (text := missing(module, name))]
    assert not lacks, told(f"lacks what raystack/ray_internals/{group}.py uses", lacks)
    reached = getattr(importlib.import_module(f"raystack.ray_internals.{group}"), "REACHED", ())
    lacks = [f"{owner}: {name}" for owner, names in reached for name in names if not _has(owner, name)]
    assert not lacks, told(f"lacks what raystack/ray_internals/{group}.py uses", lacks)


def _has(owner: object, name: str) -> bool:
    """An attribute, or one that each instance is given when it is built."""
    if hasattr(owner, name) or isinstance(owner, (type, ModuleType)):
        return hasattr(owner, name)
    return f"self.{name}" in inspect.getsource(type(owner))


def test_every_undocumented_variable_is_read_by_the_version_that_is_installed() -> None:
    root = Path(str(ray.__file__)).parent
    names = [value for name, value in vars(variables).items() if name.isupper() and isinstance(value, str)]
    names += [*variables.SERVE_HAPROXY_FILES, *variables.SERVE_HAPROXY_PORTS, *variables.SERVE_REPLICA_PORTS]
    assert set(names) == set(variables.READ_IN)
    lacks = []
    for name, file in variables.READ_IN.items():
        read = name.removeprefix("RAY_") if "raylet" in file else name
        if not (root / file).is_file() or read.encode() not in (root / file).read_bytes():
            lacks.append(f"{name}, in {file}")
    assert not lacks, told("does not read", lacks)


def test_nobody_else_uses_what_is_private() -> None:
    found = []
    for path in outside():
        tree = ast.parse(path.read_text())
        names = [f"{module}.{name}" for module, name in imports(tree)]
        names += [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
        texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        found += [f"{path.relative_to(PACKAGE)}: {name}" for name in names if PRIVATE.match(name)]
        found += [f"{path.relative_to(PACKAGE)}: {text!r}" for text in texts if text in variables.READ_IN]
    assert not found, told("has private names that are used elsewhere", found)


def test_each_group_is_imported_by_itself() -> None:
    """Serve's takes a second that a training has no use for."""
    for group, other in (("core", "ray.train"), ("train", "ray.serve"), ("serve", "ray.train")):
        tree = ast.parse((DOOR / f"{group}.py").read_text())
        assert not [module for module, _ in imports(tree) if module.startswith(other)]
