"""The example of a rollout does what its page says: a bad version goes back, a good one takes the place."""

import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pages import CANARY, ROOT
from processes import Command
from started import started

pytestmark = [pytest.mark.ray, pytest.mark.slow]
PAGE = ROOT / "examples" / "09_canary" / "README.md"
LONGEST_S = 500.0


@pytest.fixture
def overrides() -> list[str]:
    """What a test changes: a short training, a free port, and patience with a busy machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return ["training.epochs=3", f"serving.port={port}", "resources.wait_s=240"]


@pytest.mark.timeout(600)
def test_a_bad_version_goes_back_and_a_good_one_takes_the_place(tmp_path: Path, overrides: list[str]) -> None:
    (typed,) = [command for command in CANARY if "demo.py" in command]
    program = [sys.executable, *shlex.split(typed)[1:], *overrides]
    demo = Command(program, {**os.environ, "RAYSTACK_STORAGE": str(tmp_path)})
    assert demo.wait(LONGEST_S) == 0, demo.output

    requests = re.search(r"^(\d+) requests, 0 failed$", demo.output, re.MULTILINE)
    assert requests is not None, demo.output
    assert int(requests[1]) > 100
    back, good = re.findall(r"^version (\d: [^;]+); .* its share was (.*)$", demo.output, re.MULTILINE)
    assert re.fullmatch(r"2: rolled back [\d.]+ s after its first wrong answer", back[0])
    assert good[0] == "3: finished"
    assert re.fullmatch(r"[\d.]+% at 10%, [\d.]+% at 50%, 100.0% at 100%", good[1])
    assert re.search(r"^digits-canary@champion is version 3$", demo.output, re.MULTILINE)

    page = (tmp_path / "canary.html").read_text(encoding="utf-8")
    assert all(f"<h2>Version {number}</h2>" in page for number in (2, 3))
    assert all(f'"name":"version {number}"' in page for number in (1, 2, 3))
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=\"http", page)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_same_by_hand(tmp_path: Path, overrides: list[str]) -> None:
    block = re.search(r"^```bash\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert block is not None
    typed = [shlex.split(line, comments=True) for line in block[1].splitlines() if line]
    with started() as cluster:
        environment = {**cluster.environment, "RAY_ADDRESS": cluster.address}
        environment["RAYSTACK_STORAGE"] = str(tmp_path)

        def run(words: list[str]) -> "subprocess.CompletedProcess[str]":
            return subprocess.run(
                [*words, *overrides], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
            )

        for words in typed:
            if words[0] in ("export", "ray"):
                continue  # the cluster is there
            done = run(words)
            assert done.returncode == 0, (words, done.stderr)
        status = next(words for words in typed if "status" in words)
        assert "it was an exercise" in run(status).stdout
