"""The commands that the project's pages tell a reader to type, and how a test runs them."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("examples/*/README.md")),
    ROOT / "kuberay" / "README.md",
]
PROGRAMS = (
    "python ",
    "ray ",
    "make",
    "source ",
    "export ",
    "raystack ",
    "pip ",
    "kubectl ",
    "helm ",
    "docker ",
)


def blocks(page: Path) -> list[list[str]]:
    """The commands of each plain code block of a page that has some, without their comments and line
    breaks.
    """
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    texts = [re.sub(r"\s*\\\n\s*", " ", text) for language, text in found if not language]
    lines = [
        [line.removeprefix("$ ").partition("  #")[0].strip() for line in text.splitlines()] for text in texts
    ]
    typed = [[line for line in block if line.startswith(PROGRAMS)] for block in lines]
    return [block for block in typed if block]


def commands(pages: Iterable[Path] = PAGES) -> list[str]:
    """The commands of all pages, each once."""
    return list(dict.fromkeys(command for page in pages for block in blocks(page) for command in block))


def on_kubernetes(command: str) -> bool:
    """Whether it needs an API server, or is about what is sent to one."""
    return (
        command.startswith(("raystack ", "kubectl "))
        and not re.match(r"raystack (checkpoint|costs|tune (ls|show|best))\b", command)
        and "target=job" not in command
    )


TRAIN = [
    command
    for command in commands()
    if command.startswith("python -m raystack.train") and not re.search("epocs|best.yaml", command)
]
SUBMIT = [
    command for command in commands() if command.startswith("raystack train") and "target=job" in command
]
TUNE = [
    command
    for block in blocks(ROOT / "examples" / "06_tuning" / "README.md")
    for command in block
    if re.match(r"python -m raystack|raystack tune", command)
]
"""What the page of the example of tuning says, in its order."""
CANARY = commands([ROOT / "examples" / "09_canary" / "README.md"])
"""What the page of the example of a rollout says: test_canary.py does it."""
CHECKPOINT = [command for command in commands() if command.startswith("raystack checkpoint")]
SMALL_GPT = [
    "training.steps=2",
    "task.args={width: 24, depth: 1, heads: 2, megabytes: 0.2}",
    "~training.schedule",
]
SHORT = {
    "01_digits": ["training.epochs=1"],
    "02_language_model": SMALL_GPT,
    "03_fine_tune_language_model": ["training.epochs=null", "training.steps=2", "~training.schedule"],
    "04_zero3": SMALL_GPT,
    "07_from_trainer": ["training.epochs=1"],
    "08_from_lightning": ["training.epochs=1"],
}


def shortened(command: str) -> list[str]:
    words = shlex.split(command)
    program = [sys.executable, *words[1:]] if words[0] == "python" else words
    example = re.search(r"examples/(\w+)/", command)
    if not example or "train" not in command:
        return program
    # What an example's page proposes to try needs no workers to be tried.
    variation = re.search(r" (task\.|training\.(optimizer|precision))", command)
    return [*program, *SHORT[example[1]], *(["resources=inline"] if variation else [])]


def alone(command: str) -> bool:
    """Whether training by it needs no Ray, and no run of another command."""
    return "--resume" not in command and ("--dry-run" in command or "resources=inline" in shortened(command))


def check_trained(command: str, done: "subprocess.CompletedProcess[str]") -> None:
    """A training command has ended with where everything is."""
    assert done.returncode == 0, done.stderr
    if "--json" in command:
        assert json.loads(done.stdout)["run_id"]
    else:
        assert re.search(r"^run +\w", done.stdout, re.MULTILINE)
    if "--dry-run" not in command:
        assert re.search(r"^checkpoint +/.*/step-\d{10}$", done.stdout, re.MULTILINE)
        assert re.search(r"^version +models:/", done.stdout, re.MULTILINE)
        assert re.search(r"^mlflow +mlflow server", done.stdout, re.MULTILINE)
    assert "Traceback" not in done.stderr
