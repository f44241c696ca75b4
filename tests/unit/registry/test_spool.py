"""Commands on a disk that fills up."""

import subprocess
import sys
from pathlib import Path

from raystack.registry.command import End, Metrics, Run
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


def test_a_file_holds_the_commands_of_nested_runs(tmp_path: Path) -> None:
    nested = RUN.model_copy(update={"run_id": "r-1", "parent": "r"})
    end = End(status="FINISHED", ended_ms=1)
    spool = Spool(tmp_path, RUN)
    spool.append([(RUN, POINTS), (nested, POINTS)])
    spool.append([(nested, end), (RUN, end)])
    spool.close()
    (path,) = tmp_path.iterdir()
    with claim(path) as content:
        assert content == [(RUN, [POINTS]), (nested, [POINTS, end]), (RUN, [end])]


def test_a_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "r.1.jsonl"
    path.write_text(
        '{"do":"run","tracking_uri":"x","experiment":"e","run_id":"r","artifacts":null,"tags":{},"started_ms":0}\n'
        '{"do":"metrics","points":[["train/loss",1.0,2,3]]}\n'
        '{"do":"end","status":"FINISHED","ended_ms":1}\n'
    )
    with claim(path) as content:
        points = Metrics(points=(("train/loss", 1.0, 2, 3),))
        assert content == [(RUN, [points, End(status="FINISHED", ended_ms=1)])]
