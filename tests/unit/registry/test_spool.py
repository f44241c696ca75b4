"""Commands on a disk that fills up."""

import subprocess
import sys
from pathlib import Path

from raystack.registry.command import Metrics, Run
from raystack.registry.spool import Spool, claim

RUN = Run(tracking_uri="x", experiment="e", run_id="r", artifacts=None, tags={}, started_ms=0)
POINTS = Metrics(points=tuple(("train/loss", 1.0, step, step) for step in range(20)))

FILLS_UP = """
import resource, sys
from pathlib import Path
from tests.unit.registry.test_spool import POINTS, RUN
from raystack.registry.spool import Spool

spool = Spool(Path(sys.argv[1]), RUN)
for size in (300, 100_000, 1000, 100_000):  # no file may become larger, which a process meets as a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        spool.append([(RUN, POINTS)])
        print("written")
    except OSError as error:
        print(type(error).__name__)
spool.close()
"""


def test_a_full_disk_leaves_whole_lines_and_closes_quietly(tmp_path: Path) -> None:
    """What did not fit is written when there is room, and the file can be read."""
    done = subprocess.run(
        [sys.executable, "-c", FILLS_UP, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.stdout.split(), done.stderr) == (["OSError", "written", "OSError", "written"], "")
    (path,) = tmp_path.iterdir()
    with claim(path) as content:
        assert content == [(RUN, [POINTS, POINTS])]


def test_nothing_is_left_where_not_even_the_first_line_fits(tmp_path: Path) -> None:
    spool = Spool(tmp_path, RUN)
    spool.close()
    assert list(tmp_path.iterdir()) == []
