"""A budget ends a real run with its checkpoint; the ledger, `status` and `costs` have the same figure."""

import json
import os
import re
import sys
from pathlib import Path

import pytest
from processes import ROOT, Command

pytestmark = [pytest.mark.ray, pytest.mark.slow]

CONFIG = str(ROOT / "examples" / "01_digits" / "config.yaml")
LONG = ("training.epochs=100000", "~training.early_stopping", "~registry", "tracking=off")
PAID = ("resources.workers=2", "prices.worker_per_hour=36")


def raystack(storage: Path, *words: str) -> tuple[int, str]:
    command = Command(
        [sys.executable, "-m", "raystack", *words], {**os.environ, "RAYSTACK_STORAGE": str(storage)}
    )
    return command.wait(90), command.output


def test_money_ends_a_run_with_its_checkpoint_and_the_records_agree(tmp_path: Path, ray_cluster: str) -> None:
    joined = (*LONG, *PAID, f"target.address={ray_cluster}")
    code, told = raystack(tmp_path, "train", CONFIG, *joined, "budget={money: 0.5, warn_at: 0.2}")
    assert code == 8, told
    assert re.search(r"warning: budget.money: 0\.1\d* of 0.5 USD is used; at the limit it stops", told), told
    found = re.search(
        r"budget.money: it is used up: 0\.5\d* of 0.5 USD; step (\d+): .*checkpoint (\S+);", told
    )
    assert found is not None, told
    assert Path(found[2], "manifest.json").is_file()
    (run,) = (tmp_path / "runs").iterdir()
    (entry,) = json.loads((run / "ledger.json").read_text())["entries"]
    assert entry["money"] == pytest.approx(2 * 36 * entry["seconds"] / 3600)
    assert (entry["workers"], entry["steps"]) == (2, int(found[1]))
    (line,) = json.loads(raystack(tmp_path, "costs", "--json")[1].partition("1 run used")[0])
    assert (line["status"], line["spent"]["money"]) == ("paused", entry["money"])
    _, status = raystack(tmp_path, "status", f"job/{run.name}")
    assert (
        f"is stopped ({entry['seconds']:.0f} s, {entry['money']:.2f} USD): budget.money: it is used" in status
    )

    code, told = raystack(tmp_path, "train", CONFIG, *joined, "budget.money=0.5", "--resume")
    assert (code, "raise it, and go on with --resume" in told) == (8, True), told
    _, told = raystack(tmp_path, "train", CONFIG, *joined, "budget.money=2", "--resume", "--dry-run")
    assert (run.name in told, "for 2245313 steps" in told, "2 USD; warns at 80%" in told) == (True,) * 3, told
