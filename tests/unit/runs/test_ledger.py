"""What runs have used: figures worked out by hand, over drivers, currencies and runs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from raystack.cli import terminal
from raystack.cli.terminal import Terminal
from raystack.plan.costs import duration, money
from raystack.runs import ledger
from raystack.runs.ledger import Entry, Spent
from raystack.runs.report import Line, report, sums
from raystack.storage import Storage

HOUR = Entry(1, 0.0, seconds=3600, gpu_hours=8, money=40.0, workers=8, steps=90, trained_s=2700)
AGAIN = replace(HOUR, driver=2, seconds=1800, gpu_hours=4, money=20.0, trained_s=1800)


def put(storage: Path, run: str, *entries: Entry) -> None:
    (storage / "runs" / run).mkdir(parents=True)
    ledger.write(Storage(f"{storage}/runs/{run}"), entries)


@pytest.fixture
def lines(tmp_path: Path) -> list[Line]:
    put(tmp_path, "a-20260101-120000-aaaa", HOUR, AGAIN)
    put(tmp_path, "a-20260102-120000-bbbb", replace(HOUR, money=None))
    put(tmp_path, "b-20260103-120000-cccc", replace(AGAIN, currency="EUR", driver=1))
    put(tmp_path, "not a run")
    (tmp_path / "runs" / "a-20260104-120000-dddd").mkdir()
    return report(str(tmp_path))


def test_all_drivers_of_a_run_count_and_what_was_without_steps_is_told_apart(lines: list[Line]) -> None:
    assert [(line.run[:1], line.drivers) for line in lines] == [("a", 2), ("a", 1), ("b", 1)]
    assert lines[0].spent == Spent(seconds=5400, gpu_hours=12, money=60.0, currency="USD")
    # A quarter of the first hour and nothing of the second driver's half.
    assert lines[0].idle == Spent(seconds=900, gpu_hours=0, money=10.0, currency="USD")
    assert lines[1].spent.money is None
    assert list(sums(lines)) == [
        "2 runs used 2.5 h, 20.00 GPU-hours, 60.00 USD; 30 min, 10.00 USD of it without steps",
        "1 run used 30 min, 4.00 GPU-hours, 20.00 EUR; 0 s, 0.00 EUR of it without steps",
    ]


def test_an_experiment_alone(lines: list[Line], tmp_path: Path) -> None:
    assert [line.run for line in report(str(tmp_path), "b")] == ["b-20260103-120000-cccc"]
    assert report(str(tmp_path / "nowhere")) == []


def test_the_verb_shows_a_table_and_json(
    lines: list[Line], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Terminal(as_json=False).costs(lines, sums(lines))
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split("  ")[0] == "run"
    assert shown[1].endswith("2        90 min, 12.00 GPU-hours, 60.00 USD  15 min, 10.00 USD")
    Terminal(as_json=True).costs(lines, sums(lines))
    first = json.loads(capsys.readouterr().out)[0]
    assert tuple(first) == terminal.COST_KEYS
    assert first["spent"] == {"seconds": 5400, "gpu_hours": 12, "money": 60.0, "currency": "USD"}


def test_a_ledger_of_a_later_version_is_read_and_a_broken_one_is_none(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.write(ledger.FILE, json.dumps({"entries": [{"driver": 1, "began_at": 0, "watts": 3}]}))
    assert ledger.read(storage) == [Entry(1, 0)]
    for text in ("", "[]", '{"entries": [3]}', '{"entries": [{}]}'):
        storage.write(ledger.FILE, text)
        assert ledger.read(storage) == []
    assert ledger.spent(str(tmp_path)) == ""


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0.00"),
        (0.0025, "0.0025"),
        (0.083, "0.083"),
        (0.0996, "0.10"),
        (0.29, "0.29"),
        (110.084, "110.08"),
    ],
)
def test_money_is_readable(amount: float, text: str) -> None:
    assert money(amount) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (119, "119 s"), (2100, "35 min"), (45000, "12.5 h")]
)
def test_a_time_is_readable(seconds: float, text: str) -> None:
    assert duration(seconds) == text
