"""The example of a rollout does what its page says: a bad version goes back, a good one takes the place."""

import os
import re
import shlex
import socket
import sys
from pathlib import Path

import pytest
from pages import CANARY
from processes import Command

pytestmark = [pytest.mark.ray, pytest.mark.slow]
LONGEST_S = 500.0


@pytest.mark.timeout(600)
def test_a_bad_version_goes_back_and_a_good_one_takes_the_place_of_the_first(tmp_path: Path) -> None:
    (typed,) = [command for command in CANARY if "demo.py" in command]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    overrides = ["training.epochs=3", f"serving.port={port}", "resources.wait_s=240"]
    program = [sys.executable, *shlex.split(typed)[1:], *overrides]
    demo = Command(program, {**os.environ, "RAYSTACK_STORAGE": str(tmp_path)})
    assert demo.wait(LONGEST_S) == 0, demo.output

    requests = re.search(r"^(\d+) requests, 0 failed$", demo.output, re.MULTILINE)
    assert requests is not None, demo.output
    assert int(requests[1]) > 100
    assert re.search(
        r"^version 2: rolled back [\d.]+ s after its first wrong answer; ", demo.output, re.MULTILINE
    )
    shares = re.search(
        r"^version 3: finished; .* at 10%, .* at 50%, (.*) at 100%$", demo.output, re.MULTILINE
    )
    assert shares is not None, demo.output
    assert shares[1] == "100.0%"

    page = (tmp_path / "canary.html").read_text(encoding="utf-8")
    assert all(f"<h2>Version {number}</h2>" in page for number in (2, 3))
    assert all(f'"name":"version {number}"' in page for number in (1, 2, 3))
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=\"http", page)
