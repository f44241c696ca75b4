"""The shape of the code, in numbers: `python benchmarks/structure.py [CHECKOUT ...]`; a column for each
checkout.

Rooms are the packages and modules right below `raystack`. A cycle is a strongly connected set of modules by
the imports that run when they are imported; an arrow is a pair of rooms of which one imports the other.
"""

import ast
import io
import statistics
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "raystack"
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One file: `name` with dots."""

    name: str
    text: str
    tree: ast.Module


def modules(root: Path) -> list[Module]:
    """Every module of the package below `root`."""
    found = []
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        found.append(Module(name, text, ast.parse(text)))
    return found


def lengths(code: list[Module]) -> list[int]:
    """Lines of each function, from its first to its last, without decorators."""
    return [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for module in code
        for node in ast.walk(module.tree)
        if isinstance(node, Function)
    ]


def inner_imports(code: list[Module]) -> list[str]:
    """Import statements inside functions, as `module:line`."""
    return [
        f"{module.name}:{node.lineno}"
        for module in code
        for function in ast.walk(module.tree)
        if isinstance(function, Function)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]


def documented(code: list[Module]) -> tuple[int, int]:
    """Public modules, classes, functions and methods with a docstring, and all of them."""
    have = total = 0
    for module in code:
        for node in _public(module.tree):
            total += 1
            have += ast.get_docstring(node) is not None
    return have, total


def _public(tree: ast.Module | ast.ClassDef) -> Iterator[ast.Module | ast.ClassDef | Function]:
    yield tree
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _public(node)
        elif isinstance(node, Function) and not node.name.startswith("_"):
            yield node


def comments(code: list[Module]) -> int:
    """Lines that hold a comment."""
    return sum(
        token.type == tokenize.COMMENT
        for module in code
        for token in tokenize.generate_tokens(io.StringIO(module.text).readline)
    )


def imports(code: list[Module]) -> dict[str, set[str]]:
    """Which module of the package each module imports when it is imported itself."""
    names = {module.name for module in code}
    graph: dict[str, set[str]] = {}
    for module in code:
        targets = {target for node in _executed(module.tree) for target in _named(node, names)}
        graph[module.name] = targets - {module.name}
    return graph


def _executed(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements outside functions and outside `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif isinstance(child, Function | ast.Lambda):
            continue
        elif (
            isinstance(child, ast.If)
            and isinstance(child.test, ast.Name)
            and child.test.id == "TYPE_CHECKING"
        ):
            for other in child.orelse:
                yield from _executed(other)
        else:
            yield from _executed(child)


def _named(node: ast.Import | ast.ImportFrom, names: set[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in names)
    elif node.module in names:
        inner = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name for name in inner if name in names)
        if any(name not in names for name in inner):
            yield node.module


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected sets of more than one module (Tarjan, 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in graph[name]:
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            component = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(component) > 1:
                found.append(sorted(component))

    for name in graph:
        if name not in index:
            visit(name)
    return found


def room(name: str) -> str:
    """The room that a module lies in."""
    return name.split(".")[1] if "." in name else name


def arrows(graph: dict[str, set[str]]) -> set[tuple[str, str]]:
    """Pairs of rooms (importer, imported)."""
    return {
        (room(name), room(target))
        for name, targets in graph.items()
        for target in targets
        if room(name) != room(target)
    }


def measure(root: Path) -> dict[str, str]:
    """Every number of the checkout at `root`, by its name."""
    code = modules(root)
    graph = imports(code)
    known = lengths(code)
    have, total = documented(code)
    lines = sum(len(module.text.splitlines()) for module in code)
    commented = comments(code)
    launch = sum(
        len(module.text.splitlines()) for module in code if f"{module.name}.".startswith("raystack.launch.")
    )
    return {
        "files": str(len(code)),
        "lines": str(lines),
        "lines of raystack/launch": str(launch),
        "functions": str(len(known)),
        "median function": f"{statistics.median(known):.0f} lines",
        "longest function": f"{max(known)} lines",
        "import cycles": str(len(cycles(graph))),
        "imports inside functions": str(len(inner_imports(code))),
        "public docstrings": f"{have} of {total}",
        "comment lines": f"{commented} ({100 * commented / lines:.1f} %)",
        "rooms": str(len({room(module.name) for module in code} - {PACKAGE})),
        "arrows between rooms": str(len(arrows(graph))),
    }


def main() -> None:
    roots = [Path(argument) for argument in sys.argv[1:]] or [Path(__file__).parents[1]]
    columns = [measure(root) for root in roots]
    for name in columns[0]:
        print(f"| {name} | " + " | ".join(column[name] for column in columns) + " |")
    for component in cycles(imports(modules(roots[-1]))):
        print("cycle:", ", ".join(component))


if __name__ == "__main__":
    main()
