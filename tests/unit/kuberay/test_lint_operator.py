"""Lint refuses what the validation of KubeRay's operator refuses, and nothing that it accepts."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from objects import good, merged

from raystack.kuberay.lint import Finding, Operator, documents, lint
from raystack.kuberay.lint.operator import RELEASES

TABLE: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parent / "operator_cases.yaml").read_text(encoding="utf-8")
)
PLACES = {
    "RayCluster": ("spec",),
    "RayJob": ("spec", "rayClusterSpec"),
    "RayService": ("spec", "rayClusterConfig"),
    "RayCronJob": ("spec", "jobTemplate", "rayClusterSpec"),
}
JOBS = {"RayJob": ("spec",), "RayCronJob": ("spec", "jobTemplate")}


def rows(answer: str, *, newer: bool = False) -> list[Any]:
    """The rows of the table with one answer, for each kind; of newer rules alone."""
    return [
        pytest.param(entry, kind, patch, id=f"{number}-{index}-{kind}-{entry['rule']}")
        for number, entry in enumerate(TABLE)
        if not newer or "since" in entry
        for index, patch in enumerate(entry[answer])
        for kind in entry["kinds"]
    ]


def below(keys: tuple[str | int, ...], patch: Any) -> Any:
    """A patch at a path."""
    return below(keys[:-1], {keys[-1]: patch}) if keys else patch


def made(kind: str, patch: dict[str, Any], *, image: bool) -> dict[str, Any]:
    """The object that a row describes."""
    whole: dict[str, Any] = good(kind)
    place, inside = PLACES[kind], dict(patch)
    container: tuple[str | int, ...] = ("template", "spec", "containers", 0)
    head, worker = (*place, "headGroupSpec", *container), (*place, "workerGroupSpecs", 0, *container)
    patches = [below(place, inside.pop("cluster", {})), below(JOBS.get(kind, ()), inside.pop("job", {}))]
    patches += [
        below(at, inside.pop(name)) for name, at in (("head", head), ("worker", worker)) if name in inside
    ]
    if not image:
        # An image without a version says nothing of Ray's.
        patches += [below((*at, "image"), "mine") for at in (head, worker)]
    for each in [*patches, inside]:
        whole = merged(whole, each)
    return whole


def errors(
    entry: dict[str, Any], kind: str, patch: dict[str, Any], version: str | None = None
) -> list[Finding]:
    """The errors in the object of a row, for an operator of a version."""
    cron = {"RayCronJob"} if kind == "RayCronJob" else set()
    off = frozenset(entry.get("off", ()))
    gates = frozenset({*entry.get("gates", ()), "RayJobDeletionPolicy", *cron}) - off
    known = Operator(version or entry.get("version", RELEASES[-1]), gates, off)
    found = lint(documents([made(kind, patch, image=entry.get("image", True))]), known)
    return [each for each in found if each.level == "error"]


@pytest.mark.parametrize(("entry", "kind", "patch"), rows("refused"))
def test_what_the_operator_refuses_is_an_error(
    entry: dict[str, Any], kind: str, patch: dict[str, Any]
) -> None:
    assert errors(entry, kind, patch)


@pytest.mark.parametrize(("entry", "kind", "patch"), rows("accepted"))
def test_what_the_operator_accepts_is_none(entry: dict[str, Any], kind: str, patch: dict[str, Any]) -> None:
    assert [str(each) for each in errors(entry, kind, patch)] == []


@pytest.mark.parametrize(("entry", "kind", "patch"), rows("refused", newer=True))
def test_an_operator_without_the_rule_refuses_nothing(
    entry: dict[str, Any], kind: str, patch: dict[str, Any]
) -> None:
    before = RELEASES[RELEASES.index(entry["since"]) - 1]
    told = errors(entry, kind, patch, before)
    # A field that the operator does not have yet is told by that.
    assert [str(each) for each in told if each.id not in ("RS130", "RS131")] == []
