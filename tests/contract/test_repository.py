"""The repository: what its files call exists, its hooks mend what the linter finds, and what is installed is
typed and licensed.
"""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())


def targets() -> set[str]:
    """Of the Makefile."""
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def commands(workflow: Path) -> Iterator[list[str]]:
    """What the steps of a workflow run."""
    for job in yaml.safe_load(workflow.read_text())["jobs"].values():
        for step in job["steps"]:
            yield from (shlex.split(line) for line in step.get("run", "").splitlines())


def made(words: list[str]) -> set[str]:
    """The targets that a `make` command asks for."""
    assert words[0] == "make", words
    return set(words[1:])


def test_workflows_call_targets_of_the_makefile() -> None:
    called = {workflow.stem: set().union(*map(made, commands(workflow))) for workflow in WORKFLOWS}
    assert {"check", "test"} <= called["ci"]
    assert {"check", "test-all"} <= called["nightly"]
    assert set().union(*called.values()) <= targets()


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run_every_python_that_is_supported(workflow: Path) -> None:
    low, high = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["project"]["requires-python"]).groups()  # type: ignore[union-attr]
    versions = [f"3.{minor}" for minor in range(int(low), int(high))]
    for job in yaml.safe_load(workflow.read_text())["jobs"].values():
        assert job["strategy"]["matrix"]["python"] == versions
        assert job["timeout-minutes"] < 360


def test_every_target_is_listed_and_phony() -> None:
    command = ["make", "--no-print-directory", "help"]  # which it would print below another make
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert {line.split()[0] for line in listed.splitlines()} == targets()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(phony.split()) == targets()


def test_markers_and_targets_are_described() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    markers = {line.partition(":")[0] for line in PROJECT["tool"]["pytest"]["ini_options"]["markers"]}
    assert {name for name in markers if f"| `{name}` |" not in page} == set()
    assert set(re.findall(r"`make ([a-z-]+)", page)) <= targets()
    chosen = re.findall(r"\$\(PYTEST\) -m (?:'([^']*)'|(\w+))", (ROOT / "Makefile").read_text())
    assert {word for words in chosen for word in " ".join(words).split()} - {"not", "and"} <= markers


def test_the_hooks_mend_what_is_staged_without_the_network(tmp_path: Path) -> None:
    """`git commit` runs them in a clone whose .venv is this environment."""
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in (".pre-commit-config.yaml", "pyproject.toml"):
        (clone / name).write_text((ROOT / name).read_text())
    (clone / ".venv").symlink_to(sys.prefix)
    (clone / "mine.py").write_text("import sys\nimport os\nprint( os.sep,sys.argv )\n")
    (clone / ".gitignore").write_text(".venv\n")
    offline = {
        "https_proxy": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
        "PRE_COMMIT_HOME": str(tmp_path / "hooks"),
    }
    environment = {**os.environ, **offline}

    def run(command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command, shell=True, cwd=clone, env=environment, capture_output=True, text=True, timeout=60
        )

    commit = "git add -A && git -c user.name=a -c user.email=a@b.c commit -q -m one"
    assert run("git init -q && .venv/bin/pre-commit install").returncode == 0
    first = run(commit)
    assert first.returncode == 1
    assert "files were modified by this hook" in first.stderr
    assert "T201 `print` found" in first.stderr
    (clone / "mine.py").write_text((clone / "mine.py").read_text().replace("print(", "str("))
    second = run(commit)
    assert second.returncode == 0, second.stderr
    assert (clone / "mine.py").read_text() == "import os\nimport sys\n\nstr(os.sep, sys.argv)\n"


def test_pictures_of_the_readme_are_there_and_small() -> None:
    page = (ROOT / "README.md").read_text()
    shown = re.findall(r"docs/pictures/[\w.]+", page)
    assert {*shown} == {f"docs/pictures/{path.name}" for path in (ROOT / "docs" / "pictures").iterdir()}
    assert max((ROOT / name).stat().st_size for name in shown) < 300_000


def test_no_two_test_modules_have_the_same_name() -> None:
    """pytest imports each by its name alone, and leaves out the second of a name."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
