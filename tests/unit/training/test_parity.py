"""The parity table: every model shape under every strategy trains as a plain torch loop does, on two workers
and from their checkpoint on one, or is refused before the first step with the reason.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from parity_workers import SHAPES, STRATEGIES

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("parity_workers.py")
PAGE = Path(__file__).parents[3] / "docs" / "training.md"
REASONS = {"complex": "complex", "sparse": "sparse", "double backward": "takes gradients itself"}
"""A part of what a model is refused with, where no implementation of the strategy can train it."""

Table = dict[str, dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    folder = tmp_path_factory.mktemp("parity")
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)], capture_output=True, text=True, timeout=280
    )
    assert ran.returncode == 0, ran.stderr
    read: Table = json.loads((folder / "results.json").read_text())
    return read


@pytest.fixture(scope="module")
def shown() -> dict[str, dict[str, str]]:
    """What the page says of each cell."""
    lines = PAGE.read_text().partition("### Parity")[2].partition("## ")[0].splitlines()
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


def test_the_page_has_all_of_it(shown: dict[str, dict[str, str]]) -> None:
    assert {shape: tuple(cells) for shape, cells in shown.items()} == dict.fromkeys(SHAPES, STRATEGIES)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_model_trains_as_in_a_plain_loop_or_is_refused(
    table: Table, shown: dict[str, dict[str, str]], shape: str, strategy: str
) -> None:
    cell = table[shape][strategy]
    if shown[shape][strategy] == "refused":
        assert REASONS[shape] in cell["refused"]
    else:
        assert shown[shape][strategy] == "equal"
        assert cell == {name: pytest.approx(0, abs=1e-6) for name in ("losses", "error", "weights")}
