"""What a run's folder tells when no cluster knows the run: it goes on here, it ended, or it was lost."""

from pathlib import Path

import pytest

from raystack.checkpoint import fence
from raystack.checkpoint.fence import Holder
from raystack.errors import BudgetError, LaunchError, Problem
from raystack.launch import remains
from raystack.launch.remains import Remains
from raystack.outcome import Outcome
from raystack.runs import ending, lease, ledger
from raystack.runs.ledger import Entry
from raystack.storage import Storage

RUN = "digits-20260101-120000-abcd"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / RUN
    (folder / "kept" / "driver").mkdir(parents=True)
    (folder / "config.yaml").write_text("{}")
    (folder / "kept" / "driver" / f"{RUN}-a1.log").write_text("step 1\nstep 2\n")
    ledger.write(Storage(str(folder)), [Entry(1, 0.0, seconds=7200, gpu_hours=4, money=8.5)])
    return folder


def left(folder: Path, name: str = RUN) -> Remains:
    found = remains.find("job", name, str(folder.parents[1]))
    assert found is not None
    return found


def test_a_driver_of_this_machine_that_holds_the_run_goes_on_with_it(folder: Path) -> None:
    with lease.hold(str(folder), print):
        status, why = left(folder).status(), left(folder).diagnose()
        assert (status.phase, why.cause) == ("running", "nothing is wrong: it runs")
        assert "its driver is on this machine" in status.reason
    assert left(folder).status().phase == "gone"


def test_a_lost_driver_leaves_its_log_its_costs_and_what_to_do(folder: Path) -> None:
    fence.write(Storage(str(folder)), Holder(1, "token", "another machine", 1), 0.0)
    status = left(folder, f"{RUN}-a1").status()
    assert (status.phase, status.reason, status.spent) == (
        "gone",
        remains.LOST,
        "2.0 h, 4.00 GPU-hours, 8.50 USD",
    )
    assert [line.text for line in left(folder).logs(everything=False)] == ["step 1", "step 2"]
    assert left(folder).diagnose().remedy == "submit it again: it wrote no checkpoint"


def test_a_run_that_its_budget_ended_says_how_it_goes_on(folder: Path) -> None:
    problem = Problem("budget.money", rule="it is used up: 8.5 of 8 USD; step 40: it stopped")
    reached = Outcome(run_id=RUN, step=40, checkpoint=f"{folder}/checkpoints/step-0000000040")
    ending.write(str(folder), ending.failed(BudgetError(problem), reached, Holder(1, "token", "host", 1)))
    status, why = left(folder).status(), left(folder).diagnose()
    assert (status.phase, status.exit_code, status.step) == ("stopped", 8, 40)
    assert why.remedy == "raise the budget, and submit it with --resume: it goes on from its checkpoint"
    with pytest.raises(BudgetError, match=r"budget\.money"):
        status.raise_for_status()


def test_nothing_is_found_where_nothing_is(folder: Path, tmp_path: Path) -> None:
    assert remains.find("job", "another-20260101-120000-abcd", str(tmp_path)) is None
    assert remains.find("job", RUN, None) is None
    (folder / "kept" / "driver" / f"{RUN}-a1.log").unlink()
    with pytest.raises(LaunchError, match="no log of it was kept"):
        list(left(folder).logs(everything=False))
