"""README.md executed from top to bottom by an ordinary user with a new home folder, and each of its code
blocks alone.

Trainings are shortened. A cluster gets ports of its own, because another may run on this machine.
"""

import json
import re
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pages import ROOT, blocks, check_trained
from processes import stop
from started import ORDINARY, ambient, started

pytestmark = [pytest.mark.ray, pytest.mark.slow]
BLOCKS = blocks(ROOT / "README.md")
LONGEST_S = 250.0


class Reader:
    """A shell in which somebody types what the page says."""

    def __init__(self, home: Path) -> None:
        home.mkdir()
        self.home = home
        self.environment = {**ambient(), "HOME": str(home)}
        self.environment.pop("RAYSTACK_STORAGE")
        self.background = ExitStack()

    def type(self, command: str) -> None:
        """Run it to its end and look at what it said; a cluster and a server stay in the background, or end
        at once.
        """
        match shlex.split(command):
            case ["export", assignment]:
                name, _, value = assignment.partition("=")
                self.environment[name] = value
            case ["ray", "start", *_]:
                cluster = self.background.enter_context(started(self.environment))
                self.environment |= {
                    "RAY_ADDRESS": cluster.address,
                    "RAY_API_SERVER_ADDRESS": cluster.dashboard,
                }
            case ["make", target]:
                self._make(target)
            case ["python", "-m", "raystack.serve", *_] as words:
                self._serve(words)
            case words:
                self._check(command, self._run(self._shortened(words)))

    def _make(self, target: str) -> None:
        """Whoever runs this test runs `make test`. The environment is in place, or another one is used, so
        nothing is installed here.
        """
        dry = self._run(["make", "-n", "-o", "pyproject.toml", "-o", "constraints.txt", target])
        assert dry.returncode == 0, dry.stderr
        if target == "demo":
            assert "examples/01_digits/demo.py" in dry.stdout
            done = self._run(["python", "examples/01_digits/demo.py"])
            assert done.returncode == 0, done.stdout + done.stderr
            assert re.search(r"^answer: (\d) with probability [\d.]+; it is a \1$", done.stdout, re.MULTILINE)

    def _shortened(self, words: list[str]) -> list[str]:
        if "raystack.train" in words or words[:2] == ["raystack", "train"]:
            short = ["training.epochs=2"] if "--resume" in words else ["training.epochs=1"]
            return [*words, *(short if "training.epocs=3" not in words else [])]
        (run,) = [str(path) for path in self.home.glob("raystack/runs/*") if "RUN" in " ".join(words)][
            -1:
        ] or [""]
        return [word.replace("~/raystack/runs/RUN", run) for word in words]

    def _run(self, words: list[str]) -> "subprocess.CompletedProcess[str]":
        program = [sys.executable, *words[1:]] if words[0] == "python" else words
        return subprocess.run(
            [*ORDINARY, *program],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
        )

    def _check(self, command: str, done: "subprocess.CompletedProcess[str]") -> None:
        assert "Traceback" not in done.stderr, done.stderr
        if "training.epocs=3" in command:
            assert (done.returncode, done.stderr.strip()) == (2, self._shown(command))
            return
        assert done.returncode == 0, done.stdout + done.stderr
        if command.startswith("python -m raystack.train"):
            check_trained(command, done)
        elif command.startswith("ray job submit"):
            assert re.search(r"^alias +models:/digits@champion", done.stdout, re.MULTILINE)
        elif "target=job" in command:
            assert re.search(r"^job/digits-\S+ is succeeded", done.stdout, re.MULTILINE)
        elif command.startswith("raystack checkpoint"):
            assert re.search(r"^\d+ +ok ", done.stdout, re.MULTILINE)
        elif command.startswith("raystack render"):
            assert re.search(r"^kind: RayService$", done.stdout, re.MULTILINE)
        elif command.startswith("raystack train kuberay"):
            assert re.search(r"^needs +KubeRay [\d.]+ or later", done.stdout, re.MULTILINE)
        else:
            assert command == "ray get-auth-token --generate"

    def _shown(self, command: str) -> str:
        """What the page shows below the command."""
        found = re.search(rf"^\$ {re.escape(command)}\n(.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
        assert found is not None
        return found[1]

    def _serve(self, words: list[str]) -> None:
        command = [*ORDINARY, sys.executable, *words[1:], "--json"]
        with subprocess.Popen(
            command, cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, start_new_session=True
        ) as server:
            assert server.stdout is not None
            try:
                lines = []
                for line in server.stdout:
                    lines.append(line)
                    if line == b"}\n":
                        break
                outcome = json.loads(b"".join(lines))
                with urllib.request.urlopen(outcome["links"]["url"], timeout=10) as response:
                    assert json.load(response)["versions"] == [outcome["model_version"].rpartition("/")[2]]
            finally:
                stop(server, 60)  # Ctrl-C is ignored by what a shell started in the background
        assert server.returncode == 0


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    with (reader := Reader(tmp_path / "home")).background:
        yield reader


@pytest.mark.minutes
@pytest.mark.timeout(900)
def test_the_page_holds_from_top_to_bottom(reader: Reader) -> None:
    for block in BLOCKS:
        for command in block:
            reader.type(command)


ALONE = [
    pytest.param(block, id=block[0][:40], marks=pytest.mark.long if len(block) > 4 else ())
    for block in BLOCKS[1:]
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("block", ALONE)
def test_each_block_holds_alone(block: list[str], reader: Reader) -> None:
    for command in block:
        reader.type(command)
