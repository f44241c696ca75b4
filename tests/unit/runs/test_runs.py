"""Which run is gone on with: that of an earlier attempt of the same job, or what was asked for; a new
submission is a new run.
"""

import json
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from raystack import job_context
from raystack.checkpoint import fence
from raystack.checkpoint.fence import Holder
from raystack.config import RunConfig, dump, load
from raystack.errors import LaunchError, Problem, TrainingError
from raystack.outcome import Outcome
from raystack.plan import TunePlan, plan_tuning
from raystack.ray_internals.variables import JOB_CONFIG
from raystack.runs import ending, lease, selection
from raystack.storage import Storage

pytestmark = pytest.mark.slow

OLD, NEW = "tiny-20260101-000000-aaaa", "tiny-20260103-000000-cccc"
TINY = Path(__file__).parents[2] / "tiny" / "config.yaml"


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return load(TINY, [f"experiment.storage={tmp_path}", "experiment.resume=auto"])


def begin(config: RunConfig, run: str) -> Path:
    """A run that trained, as far as its folder tells."""
    folder = Path(config.experiment.storage, "runs", run)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(dump(config))
    return folder


def end(folder: Path, error: Exception | None) -> None:
    """Its driver ended with its result, or with an error."""
    driver, reached = Holder(1, "token", "here", 7), Outcome(run_id=folder.name)
    last = ending.succeeded(reached, driver) if error is None else ending.failed(error, reached, driver)
    ending.write(str(folder), last)


def test_a_run_whose_ray_never_answered_is_passed_over(config: RunConfig) -> None:
    begin(config, OLD)
    with lease.hold(f"{config.experiment.storage}/runs/tiny-20260102-000000-bbbb", print):
        pass
    assert selection.find(config, None, print) == selection.unfinished(config, print) == OLD
    with pytest.raises(LaunchError, match=f"did you mean {OLD}"):
        selection.find(config, "tiny-20260102-000000-bbbb", print)


def test_a_config_that_was_cut_off_is_nobody_s(config: RunConfig) -> None:
    (begin(config, OLD) / "config.yaml").write_text("")
    assert selection.unfinished(config, print) is None


def test_a_run_that_has_ended_is_not_gone_on_with_by_itself(config: RunConfig) -> None:
    end(begin(config, OLD), None)
    assert selection.unfinished(config, print) is None


def test_a_run_that_has_failed_may_go_on_by_itself(config: RunConfig) -> None:
    end(begin(config, OLD), TrainingError(Problem("step 3", rule="a bad sample")))
    assert selection.unfinished(config, print) == OLD


def test_an_object_store_that_is_away_for_a_moment_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = fsspec.filesystem("memory")
    config = load(TINY, ["experiment.storage=memory://away", "experiment.resume=auto"])
    memory.pipe_file(f"/away/runs/{OLD}/config.yaml", dump(config).encode())
    answer, away = memory.ls, [ConnectionError("no route to host")]

    def ls(path: str, **options: object) -> object:
        if away:
            raise away.pop()
        return answer(path, **options)

    monkeypatch.setattr(memory, "ls", ls)
    monkeypatch.setattr("raystack.storage.FIRST_WAIT_S", 0.01)
    assert selection.unfinished(config, print) == OLD
    assert not away, "the first answer was an error"


def chosen(config: RunConfig, *overrides: str, resume: bool = False) -> str:
    """By a driver that begins now, with a new id of its own."""
    asked = load(TINY, [f"experiment.storage={config.experiment.storage}", *overrides])
    return selection.choose(asked, NEW, print, resume=resume, run=None)


def drive(config: RunConfig, run: str, *, begins: bool = True) -> None:
    """A driver takes the run, and ends without finishing it."""
    if begins:
        begin(config, run)
    with lease.hold(f"{config.experiment.storage}/runs/{run}", print):
        pass


@pytest.fixture
def within(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put this process into an attempt of a job."""

    def enter(namespace: str | None = None, **metadata: str) -> None:
        monkeypatch.setenv(JOB_CONFIG, json.dumps({"metadata": metadata}))
        if namespace is not None:
            monkeypatch.setenv(job_context.NAMESPACE, namespace)

    return enter


SUBMITTED = {job_context.RUN: NEW, job_context.SUBMISSION: f"{NEW}-a1"}


@pytest.mark.parametrize(
    "metadata", [None, {job_context.SUBMISSION: "raysubmit_Ab2Cd3Ef4Gh5Jk6L"}, SUBMITTED]
)
def test_a_new_submission_is_a_new_run_whatever_failed_or_was_cancelled_before(
    config: RunConfig, within: Callable[..., None], metadata: dict[str, str] | None
) -> None:
    drive(config, OLD)
    if metadata is not None:
        within(**metadata)
    assert chosen(config) == NEW
    assert chosen(config, resume=True) == OLD
    assert chosen(config, "experiment.resume=auto") == OLD


def test_every_attempt_of_a_job_goes_on_with_its_run(config: RunConfig, within: Callable[..., None]) -> None:
    within(**SUBMITTED)
    drive(config, NEW)
    begin(config, "tiny-20260104-000000-dddd")
    assert chosen(config) == NEW
    assert (
        selection.choose(load(TINY, ["experiment.resume=never"]), "another", print, resume=False, run=None)
        == NEW
    ), "it has not begun there"
    never = load(TINY, [f"experiment.storage={config.experiment.storage}", "experiment.resume=never"])
    assert selection.choose(never, "another", print, resume=False, run=None) == "another"


def test_every_attempt_of_a_job_that_resumes_goes_on_with_the_run_that_its_first_one_found(
    config: RunConfig, within: Callable[..., None]
) -> None:
    within(**SUBMITTED)
    begin(config, OLD)
    assert chosen(config, resume=True) == OLD
    drive(config, OLD, begins=False)
    begin(config, "tiny-20260102-000000-bbbb")
    assert chosen(config, resume=True) == OLD


def test_the_attempts_of_a_rayjob_whose_manifest_is_kept_are_known_by_its_name(
    config: RunConfig, within: Callable[..., None]
) -> None:
    within("dev", **{job_context.SUBMISSION: "nightly-29927403-x7k2p"})
    assert chosen(config) == NEW
    drive(config, OLD)
    within("dev", **{job_context.SUBMISSION: "nightly-29927403-9zbcd"})
    assert chosen(config) == OLD, "a retry has another suffix"
    assert chosen(config, "training.epochs=3") == NEW, "another config is another run"
    within("dev", **{job_context.SUBMISSION: "nightly-29927404-x7k2p"})
    assert chosen(config) == NEW, "the next night"
    within("prod", **{job_context.SUBMISSION: "nightly-29927403-x7k2p"})
    assert chosen(config) == NEW, "another namespace's"
    within("dev", **{job_context.SUBMISSION: "nightly-29927403-x7k2p"})
    end(Path(config.experiment.storage, "runs", OLD), None)
    assert chosen(config) == NEW, "it was finished, so this is another job of that name"


def test_a_wait_for_a_driver_that_may_be_dead_says_so(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "EXPIRED_S", 1.0)
    begin(config, OLD)
    folder = f"{config.experiment.storage}/runs/{OLD}"
    fence.write(Storage(folder), Holder(1, "token", "elsewhere", 7), 0.0)
    told: list[str] = []
    assert selection.find(config, OLD, told.append) == OLD
    assert told == [
        f"waiting up to 1 s for a sign of life of the run's last driver, process 7 on elsewhere: {folder}"
    ]


def a_study(storage: Path, *overrides: str) -> TunePlan:
    space = "tuning={metric: eval/mse, mode: min, space: {training.optimizer.lr: {uniform: [0.1, 1.0]}}}"
    return plan_tuning(load(TINY, [f"experiment.storage={storage}", space, *overrides]), NEW)


@pytest.mark.parametrize(
    ("before", "now", "goes_on"),
    [
        (None, {job_context.RUN: NEW}, False),
        ({job_context.RUN: NEW}, {job_context.RUN: NEW, job_context.ATTEMPT: "2"}, True),
        ({job_context.RUN: OLD}, {job_context.RUN: NEW}, False),
        ({job_context.RUN: OLD}, {job_context.SUBMISSION: "raysubmit_x"}, False),
        ({job_context.RUN: OLD}, None, False),
        ({job_context.SUBMISSION: "digits-tune-b4c7d"}, {job_context.SUBMISSION: "digits-tune-x9z8w"}, True),
        ({job_context.SUBMISSION: "digits-tune-b4c7d"}, {job_context.SUBMISSION: "other-tune-x9z8w"}, False),
    ],
)
def test_a_study_goes_on_by_itself_in_a_later_attempt_of_its_job_alone(
    before: dict[str, str] | None,
    now: dict[str, str] | None,
    goes_on: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(job_context.NAMESPACE, "team")

    def within(metadata: dict[str, str] | None) -> None:
        monkeypatch.delenv(JOB_CONFIG, raising=False)
        if metadata is not None:
            monkeypatch.setenv(JOB_CONFIG, json.dumps({"metadata": metadata}))

    study = a_study(tmp_path)
    if before is not None:
        within(before)
        with lease.hold(study.paths.folder, print):
            pass
    within(now)
    assert selection.goes_on(study) is goes_on
    assert selection.goes_on(a_study(tmp_path, "experiment.resume=auto")) is True
    assert selection.goes_on(a_study(tmp_path, "experiment.resume=never")) is False


def test_in_a_pod_the_dashboard_is_a_command_that_leads_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(job_context.NAMESPACE, raising=False)
    monkeypatch.delenv(JOB_CONFIG, raising=False)
    assert job_context.dashboard_command() is None
    monkeypatch.setenv(job_context.NAMESPACE, "team")
    monkeypatch.setenv(job_context.CLUSTER, "digits-x7k2p")
    assert job_context.dashboard_command() == "raystack connect raycluster/digits-x7k2p -n team"
    metadata = {"raystack_run": "digits-1", "job_submission_id": "digits-1-x7k2p"}
    monkeypatch.setenv(JOB_CONFIG, json.dumps({"metadata": metadata}))
    assert job_context.dashboard_command() == "raystack connect rayjob/digits-1 -n team"
