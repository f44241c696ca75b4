"""What is waited for when a server changes, and what is not."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import serve

from raystack import config
from raystack.errors import ServingError
from raystack.plan import ServePlan, plan_serving
from raystack.serving import applications

TINY = Path(__file__).parents[2] / "tiny" / "config.yaml"


@pytest.fixture
def plan(tmp_path: Path) -> ServePlan:
    return plan_serving(config.load(TINY, [f"serving.model={tmp_path}", "serving.name=tiny"]))


def said(*statuses: str) -> Any:
    """Serve's status, one after the other; the last one stays."""
    left = list(statuses)

    def status() -> Any:
        now = left.pop(0) if len(left) > 1 else left[0]
        return SimpleNamespace(
            applications={"tiny": SimpleNamespace(status=now, message=f"is {now}", deployments={})}
        )

    return status


def test_a_replica_that_is_being_replaced_fails_no_change(
    plan: ServePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "status", said("DEPLOYING", "UNHEALTHY", "UNHEALTHY", "RUNNING"))
    applications.wait_until_running(plan, "tiny", "the model")


def test_what_stays_unhealthy_is_an_error(plan: ServePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applications, "RECOVERS_S", 0.3)
    monkeypatch.setattr(serve, "status", said("UNHEALTHY"))
    with pytest.raises(ServingError, match=r"the model: cannot be served: is UNHEALTHY"):
        applications.wait_until_running(plan, "tiny", "the model")


def test_what_failed_is_an_error_at_once(plan: ServePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "status", said("DEPLOY_FAILED"))
    with pytest.raises(ServingError, match="is DEPLOY_FAILED"):
        applications.wait_until_running(plan, "tiny", "the model")
