"""A rollout that was started: on which cluster it goes on, and what it answers."""

from pathlib import Path

import pytest
from pretended import Service, begun, control, plan, run

from raystack.config.target import Local
from raystack.errors import LaunchError, PlanError
from raystack.rollout.handle import RolloutHandle


def test_it_goes_on_where_it_is_told_to_and_not_where_it_began(tmp_path: Path) -> None:
    store = begun(plan(tmp_path), Service())
    handle = RolloutHandle("one", store.folder)
    target = handle.on(Local(address="127.0.0.1:2")).config.target
    assert isinstance(target, Local)
    assert target.address == "127.0.0.1:2"
    with pytest.raises(PlanError, match=r"target\.address"):
        handle.on(Local())


def test_an_order_has_its_own_decision_or_is_kept(tmp_path: Path) -> None:
    service, planned = Service(), plan(tmp_path)
    store = begun(planned, service)
    handle = RolloutHandle("one", store.folder)
    with pytest.raises(LaunchError, match="the order to pause is kept"):
        handle.order("pause", who="ann", timeout_s=0.0)
    list(run(control(planned, store, service), 1))
    assert handle.state.status == "paused"
    assert [each.what for each in store.decisions(1)] == ["pause"]
    with pytest.raises(LaunchError):
        handle.order("abort", who="ann", timeout_s=0.0)
    list(run(control(planned, store, service)))
    with pytest.raises(PlanError, match="the rollout is over: aborted"):
        handle.order("resume", who="ann")
