"""The drawn structure is the real one: layers, and the tree in the README."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_layers_hold() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-logo", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "ignore_imports" not in (ROOT / ".importlinter").read_text()


def test_the_tree_in_the_readme_names_every_room_and_verb_and_nothing_else() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 220
    drawn = set(re.findall(r"^  (\w+)(?:\.py|/)\s", readme.partition("## The tree")[2], re.MULTILINE))
    package = {
        path.stem
        for path in (ROOT / "raystack").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert drawn == package
