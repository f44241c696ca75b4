"""The page of a study: what is on it, and that a browser draws it, asks for nothing and does not complain."""

import json
import math
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, browser, needs_browser
from synthetic import record, study

from raystack.plan.tuning import TunePlan
from raystack.tuning.page import write_page
from raystack.tuning.page.importance import importance
from raystack.tuning.record import Exploit, Report, Trial

QUOTED = {"a": "both \" and '"}
EVIL = "<script>alert(1)</script> & \"'</style>"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def shown(chromium: Browser, tmp_path: Path) -> Iterator[Any]:
    """Write a page and open it; at the end, nobody has complained and nothing was asked for."""
    chromium.complaints.clear()
    chromium.requests.clear()
    page = tmp_path / "report.html"

    def shown(plan: TunePlan, trials: list[Trial], **window: Any) -> Browser:
        page.write_text(write_page(plan, trials), encoding="utf-8")
        chromium.open(page, **window)
        return chromium

    yield shown
    assert chromium.complaints == []
    assert [url for url in chromium.requests if not url.startswith("data:")] == [page.as_uri()]


def figures(html: str) -> dict[str, Any]:
    """The figures in a page, which have to be strict JSON."""
    text = re.search(r'<script type="application/json" id="figures">(.*?)</script>', html, re.DOTALL)
    assert text is not None

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    found: dict[str, Any] = json.loads(text[1], parse_constant=refuse)
    return found


def own_text(html: str) -> str:
    """The page's text, without scripts and styles."""
    bare = re.sub(r"<(script|style)\b.*?</\1>", "", html, flags=re.DOTALL)
    return unescape(re.sub(r"<[^>]+>", " ", bare))


def population() -> tuple[TunePlan, list[Trial]]:
    plan = study(scheduler={"kind": "pbt"}, trials=8)
    trials = record(plan, 8)
    for trial in trials:
        if len(trial.reports) > 4:
            point = {**trial.point, "training.optimizer.lr": 0.5}  # outside of its domain
            trial.exploits = [Exploit(report=4, donor=2, step=80, point=point)]
            trial.point = point
    return plan, trials


def test_what_is_on_the_page() -> None:
    plan = study()
    html = write_page(plan, record(plan))
    text = " ".join(own_text(html).split())
    assert (
        "Study digits 29 of 40 trials, for eval/accuracy (highest is best). Begun 2023-11-14 22:13 UTC."
        in text
    )
    for words in ("9 finished", "12 pruned", "11 infeasible", "1 failed", "4 stopped", "3 running"):
        assert words in text
    assert "11 training.batch: global has to be a multiple of micro 32 x 2 workers" in text
    assert "Best trial: 12" in text
    assert "training.optimizer.kind adamw sgd" in text
    assert "python -m raystack.train /data/studies/digits/best.yaml" in text
    assert "conditional PED-ANOVA" in text
    assert set(figures(html)) == {"history-0", "curves-0", "importance", "parallel"}
    assert html.count("plotly.js v") == 1


def test_the_best_so_far_goes_by_the_mode_and_the_constraints() -> None:
    def line(plan: TunePlan, numbers: list[float]) -> list[float]:
        trials = [
            Trial(
                number=index,
                id=f"digits-{index}",
                point={},
                status="finished",
                reports=[Report(number=1, step=1, seconds=1, metrics={"eval/accuracy": number}, order=index)],
            )
            for index, number in enumerate(numbers)
        ]
        (found,) = [
            each for each in figures(write_page(plan, trials))["history-0"]["data"] if each["mode"] == "lines"
        ]
        heights: list[float] = found["y"]
        return heights

    numbers = [0.5, math.nan, 0.9, 0.7, 0.3]
    assert line(study(), numbers) == [0.5, 0.9, 0.9]
    assert line(study(mode="min"), numbers) == [0.5, 0.3]
    assert line(study(constraints={"eval/accuracy": {"max": 0.8}}), numbers) == [0.5, 0.7, 0.7]


def test_a_logarithmic_path_has_its_decades_at_equal_distances() -> None:
    plan = study()
    axes = {
        axis["name"]: axis["ticks"] for axis in figures(write_page(plan, record(plan)))["parallel"]["axes"]
    }
    places = [place for place, text in axes["lr"]]
    assert [text for _, text in axes["lr"]] == ["0.0001", "0.001", "0.01", "0.1"]
    assert places == pytest.approx([0, 1 / 3, 2 / 3, 1], abs=1e-3)
    assert [text for _, text in axes["betas"]] == ["[0.9, 0.95]", "[0.9, 0.999]", "none"]


def test_importance_finds_the_path_that_matters() -> None:
    plan = study()
    shares = importance(plan, record(plan, 300))
    assert isinstance(shares, dict)
    assert next(iter(shares)) == "training.optimizer.lr"
    assert sum(shares.values()) == pytest.approx(1)
    assert set(shares) == {each.path for each in plan.space}  # those with a condition too


def test_importance_says_when_it_cannot_be_told() -> None:
    plan = study()
    assert importance(plan, record(plan, 5)) == (
        "This needs 10 finished or pruned trials with a value, and there are 4."
    )
    same = record(plan, 100)
    for trial in same:
        for report in trial.reports:
            report.metrics["eval/accuracy"] = 0.5
    assert isinstance(importance(plan, same), str)


def test_what_users_write_is_text() -> None:
    plan = study(space={"task.args.activation": {"choice": [EVIL, "relu"]}})
    trials = record(plan, 20)
    trials[0].status, trials[0].reason = "failed", EVIL
    html = write_page(plan, trials)
    assert "<script>alert" not in html
    assert EVIL in own_text(html)
    told = figures(html)
    assert all("<script" not in line["text"] for line in told["parallel"]["lines"])
    # plotly.js reads entities in what it draws.
    assert "&lt;script&gt;" in told["parallel"]["axes"][0]["ticks"][0][1]


def test_a_thousand_trials_make_a_page_that_can_be_sent() -> None:
    plan = study()
    trials = record(plan, 1000)
    first = next(trial.reports[0] for trial in trials if trial.reports)
    many = [first.model_copy(update={"step": step}) for step in range(2000)]
    for trial in trials[:300]:
        trial.reports = many
    assert len(write_page(plan, trials).encode()) < 15e6


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_browser_draws_few_trials(shown: Any, count: int) -> None:
    plan = study()
    page = shown(plan, record(plan, count))
    assert page.run(
        "[...document.querySelectorAll('.plot')].every((each) => each.querySelector('svg.main-svg'))"
    )


@pytest.mark.slow
@needs_browser
def test_its_colors_follow_the_reader_and_nothing_sticks_out(shown: Any) -> None:
    plan = study()
    page = shown(plan, record(plan), dark=True, width=400)
    ink = "document.querySelector('#history-0 .xtitle').style.fill"
    back = "getComputedStyle(document.body).backgroundColor"
    assert (page.run(ink), page.run(back)) == ("rgb(228, 231, 236)", "rgb(21, 24, 29)")
    page.prefer(dark=False)
    page.wait(f"{ink} === 'rgb(29, 33, 41)'")
    assert page.run(back) == "rgb(255, 255, 255)"
    for width in (400, 1600):
        page.resize(width, 900)
        assert page.run("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.slow
@needs_browser
def test_the_table_is_sorted_and_filtered(shown: Any) -> None:
    plan = study()
    trials = record(plan)
    page = shown(plan, trials)
    rows = "[...document.querySelectorAll('#trials tbody tr[data-status]:not([hidden])')]"
    column = f"{rows}.map((row) => row.cells[0].textContent)"
    assert page.run(column)[0] == "12"  # the best
    for expected in (sorted(range(40)), sorted(range(40), reverse=True)):
        page.run("document.querySelector('#trials th button').click()")
        assert page.run(column) == [str(number) for number in expected]
    page.run("document.getElementById('filter').value = 'sgd zero1', filter()")
    chosen = [t for t in trials if {"sgd", "zero1"} <= set(map(str, t.point.values()))]
    assert len(page.run(column)) == len(chosen) < 40
    page.run("document.getElementById('status').value = 'pruned', filter()")
    assert len(page.run(column)) == sum(trial.status == "pruned" for trial in chosen)
    values = f"{rows}.map((row) => row.cells[2].textContent)"
    page.run(
        "document.getElementById('filter').value = document.getElementById('status').value = '', filter()"
    )
    page.run("document.querySelectorAll('#trials th button')[2].click()")
    assert page.run(values)[-12:] == ["-"] * 12  # no value is never first


@pytest.mark.slow
@needs_browser
def test_trials_are_chosen_along_an_axis(shown: Any) -> None:
    plan = study()
    trials = record(plan)
    page = shown(plan, trials)
    page.run("document.getElementById('parallel').scrollIntoView()")
    corners = page.run(
        "(() => { const plot = document.getElementById('parallel'), box = plot.getBoundingClientRect();"
        " const { xaxis: h, yaxis: v } = plot._fullLayout;"
        " const at = (x, y) => [box.left + h._offset + h.d2p(x), box.top + v._offset + v.d2p(y)];"
        " return [at(-0.1, 0.9), at(0.1, 0.6)]; })()"
    )
    page.drag(*map(tuple, corners))
    page.wait("kept !== null")
    expected = [trial.number for trial in trials if trial.point["training.optimizer.kind"] == "sgd"]
    assert page.run("[...kept]") == expected


@pytest.mark.slow
@needs_browser
def test_every_kind_of_study_is_drawn(shown: Any) -> None:
    page = shown(*population())
    assert "takes over" in page.run("document.getElementById('curves-0').textContent")
    several = study(metric=["eval/accuracy", "eval/size", "eval/late"], mode=["max", "min", "min"])
    trials = record(several)
    for trial in trials:
        for report in trial.reports:
            report.metrics["eval/late"] = report.metrics["eval/size"] % 7 + 1e-3
    page.requests.clear()
    page = shown(several, trials)
    assert page.run("document.querySelectorAll('.plot[id^=front]').length") == 3
    nothing = study()
    trials = record(nothing, 12)
    for trial in trials:
        for report in trial.reports:
            report.metrics = {"eval/accuracy": math.nan}
    page.requests.clear()
    page = shown(nothing, trials)
    assert "there is no best one" in page.run("document.getElementById('best').textContent")


@pytest.mark.slow
@needs_browser
def test_a_thousand_trials_are_drawn(shown: Any) -> None:
    plan = study()
    page = shown(plan, record(plan, 1000))
    assert page.run("document.querySelectorAll('#trials tbody tr[data-status]').length") == 1000
    assert page.run("document.querySelectorAll('#history-0 .point').length") == 1000


@pytest.mark.slow
@needs_browser
def test_what_users_write_runs_no_script(shown: Any) -> None:
    choices = [EVIL, "<img src=x onerror=alert(1)>", "<a href='http://x'>y</a>", {"a": "&amp;"}]
    plan = study(space={"task.args.activation": {"choice": choices}})
    page = shown(plan, record(plan, 20))
    labels = page.run("document.getElementById('parallel').textContent")
    assert "<img src=x" in labels
    assert '{"a": "&amp;' in labels
    assert page.run("document.querySelectorAll('.plot a, .plot img, main img').length") == 0
