"""What follows when a driver is lost, a token is wrong, a cluster is silent: against a Jobs API that does
what a test says.
"""

import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from raystack.checkpoint.fence import Holder
from raystack.config import load
from raystack.config.kuberay import KubeRay
from raystack.config.lifecycle import Cron
from raystack.errors import ConfigError, LaunchError, PausedError, PlanError, Problem, TrainingError
from raystack.launch import attempts, job, remote
from raystack.launch.job import JobRemote
from raystack.outcome import Outcome
from raystack.plan import TrainPlan, TunePlan, plan_training, plan_tuning
from raystack.runs import ending
from raystack.status import Status

TINY = Path(__file__).parents[2] / "tiny" / "config.yaml"
NAME = "tiny-20261123-094500-3f9a"
DIED = {"status": "FAILED", "error_type": "JOB_SUPERVISOR_ACTOR_DIED", "message": "Job supervisor actor died"}


def ended(code: int, text: str = "") -> dict[str, Any]:
    message = f"Job entrypoint command failed with exit code {code}, last available logs:\n{text}"
    return {
        "status": "FAILED",
        "error_type": "JOB_ENTRYPOINT_COMMAND_ERROR",
        "driver_exit_code": code,
        "message": message,
    }


class Cluster(ThreadingHTTPServer):
    """Each submission goes through `fates`, one state more each time somebody asks; `jobs` is what the API
    tells.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self.token: str | None = None
        self.packages: dict[str, bytes] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.fates: list[list[dict[str, Any]]] = []
        self._coming: dict[str, list[dict[str, Any]]] = {}

    def submitted(self, request: dict[str, Any]) -> bool:
        submission = request["submission_id"]
        if submission in self.jobs:
            return False
        told = {key: request[key] for key in ("entrypoint", "submission_id", "runtime_env", "metadata")}
        self.jobs[submission] = {
            **told,
            "type": "SUBMISSION",
            "status": "PENDING",
            "message": "Job has not started yet.",
        }
        self._coming[submission] = list(self.fates.pop(0))
        return True

    def told(self) -> list[dict[str, Any]]:
        for submission, coming in self._coming.items():
            if coming:
                self.jobs[submission] |= coming.pop(0)
        return [{"submission_id": None, "type": "DRIVER", "status": "RUNNING"}, *self.jobs.values()]


class _Answer(BaseHTTPRequestHandler):
    server: Cluster

    def do_GET(self) -> None:
        if self._may():
            if self.path == "/api/jobs/":
                self._say(200, json.dumps(self.server.told()).encode())
            elif self.path.endswith("/logs"):
                job = self.server.jobs[self.path.split("/")[-2]]
                self._say(200, json.dumps({"logs": job["message"]}).encode())
            else:
                self._say(200 if self.path in self.server.packages else 404, b"")

    def do_PUT(self) -> None:
        if self._may():
            self.server.packages[self.path] = self._body()
            self._say(200, b"")

    def do_POST(self) -> None:
        if self._may():
            request = json.loads(self._body())
            if self.server.submitted(request):
                self._say(200, json.dumps({"submission_id": request["submission_id"]}).encode())
            else:
                self._say(400, b"Traceback\nValueError: Job with submission_id already exists.")

    def _may(self) -> bool:
        given = self.headers.get("Authorization")
        if self.server.token is None or given == f"Bearer {self.server.token}":
            return True
        self._body()
        self._say(403 if given else 401, b"Forbidden")
        return False

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _say(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setattr(job, "POLL_S", 0.01)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with Cluster() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def plan(cluster: Cluster, tmp_path: Path) -> Callable[..., TrainPlan]:
    target = ("target=job", f"target.address={cluster.address}", f"experiment.storage={tmp_path}/storage")
    return lambda *overrides: plan_training(load(TINY, [*target, *overrides]), NAME)


def watched(cluster: Cluster) -> list[Status]:
    return list(JobRemote(cluster.address, None, NAME).watch(20))


def test_a_lost_driver_is_followed_by_the_next_attempt_of_the_same_run_with_all_that_was_asked(
    cluster: Cluster, plan: Callable[..., TrainPlan]
) -> None:
    cluster.fates = [
        [{"status": "RUNNING"}, DIED],
        [{"status": "RUNNING"}, ended(-9)],
        [{"status": "RUNNING"}, {"status": "SUCCEEDED"}],
    ]
    wanted = [
        "target.retries=2",
        "target.cpus=1",
        "target.memory_gib=0.5",
        "target.env={A: b}",
        "target.packages=[raystack-ml]",
    ]
    submitted = job.submit(plan(*wanted))
    assert (submitted.phase, submitted.name, submitted.attempt) == ("running", NAME, 1)

    seen = [(status.phase, status.attempt) for status in watched(cluster)]
    assert seen == [("retrying", 1), ("running", 2), ("retrying", 2), ("running", 3), ("succeeded", 3)]
    first, *others = cluster.jobs.values()
    assert [other["submission_id"] for other in others] == [f"{NAME}-a2", f"{NAME}-a3"]
    (package,) = cluster.packages
    environment = {"working_dir": f"gcs://{package.rpartition('/')[2]}", "pip": ["raystack-ml"]}
    assert first["runtime_env"] == {**environment, "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "60", "A": "b"}}
    for number, other in enumerate(others, start=2):
        assert other["entrypoint"] == first["entrypoint"] == "python -m raystack.train config.yaml"
        assert other["runtime_env"] == first["runtime_env"]
        assert other["metadata"] == {**first["metadata"], "raystack_attempt": str(number)}
    assert json.loads(first["metadata"]["raystack_request"]) == {
        "entrypoint_num_cpus": 1.0,
        "entrypoint_memory": 2**29,
    }


def test_a_job_that_resumes_says_so_in_each_of_its_attempts(
    cluster: Cluster, plan: Callable[..., TrainPlan]
) -> None:
    cluster.fates = [[DIED], [{"status": "SUCCEEDED"}]]
    job.submit(plan("target.retries=1"), ("--run", "tiny-20261122-094500-1a2b"))
    assert watched(cluster)[-1].attempt == 2
    entrypoints = {each["entrypoint"] for each in cluster.jobs.values()}
    assert entrypoints == {"python -m raystack.train config.yaml --run tiny-20261122-094500-1a2b"}


def test_no_more_attempts_than_were_asked_for(cluster: Cluster, plan: Callable[..., TrainPlan]) -> None:
    cluster.fates = [[DIED], [{"status": "RUNNING"}, DIED]]
    job.submit(plan("target.retries=1"))
    assert (
        "attempt 2 of 2 begins when somebody waits for it"
        in JobRemote(cluster.address, None, NAME).status().reason
    )
    last = watched(cluster)[-1]
    assert (last.phase, last.attempt, last.reason) == (
        "failed",
        2,
        "its driver was lost: Job supervisor actor died",
    )


@pytest.mark.parametrize("code", [ConfigError.exit_code, LaunchError.exit_code, TrainingError.exit_code, 1])
def test_what_a_driver_ends_with_by_itself_would_come_again_and_is_not_tried_again(
    code: int, cluster: Cluster, plan: Callable[..., TrainPlan]
) -> None:
    cluster.fates = [[ended(code, "step 3\nerror: step 3, rank 0: ValueError: a bad sample\n")]]
    job.submit(plan("target.retries=3"))
    (status,) = watched(cluster)
    assert (status.phase, status.reason) == ("failed", "error: step 3, rank 0: ValueError: a bad sample")
    found = JobRemote(cluster.address, None, NAME).diagnose()
    assert found.cause == status.reason
    assert found.remedy == attempts.REMEDIES[code]


def test_what_a_driver_left_in_its_folder_says_more_than_its_log(
    cluster: Cluster, plan: Callable[..., TrainPlan]
) -> None:
    """The log's last line is cut, or another's; the file has the step, the checkpoint and each problem."""
    decided = plan("target.retries=1")
    cluster.fates = [[ended(137, "error: a line of a library's own")], [ended(5, "error: a line of another")]]
    job.submit(decided)
    problems = (
        Problem("step 9", rule="a bad sample", remedy="see task.py:7"),
        Problem("data", rule="is gone"),
    )
    reached = Outcome(run_id=NAME, step=8, checkpoint=f"{decided.paths.checkpoints}/step-0000000008")
    driver = Holder(2, "token", "there", 7, job=NAME, attempt=2)
    ending.write(decided.paths.folder, ending.failed(TrainingError(problems), reached, driver))
    last = watched(cluster)[-1]
    assert (last.phase, last.attempt, last.exit_code) == ("failed", 2, 5)
    assert last.reason == "step 9: a bad sample; see task.py:7"
    assert (last.step, last.checkpoint, last.problems) == (8, reached.checkpoint, problems)
    with pytest.raises(TrainingError) as raised:
        last.raise_for_status()
    assert raised.value.problems == problems, "as they would be of a run on this machine"


def test_a_driver_that_ended_by_itself_is_not_tried_again_whatever_ray_saw_of_it(
    cluster: Cluster, plan: Callable[..., TrainPlan]
) -> None:
    decided = plan("target.retries=3")
    cluster.fates = [[DIED]]
    job.submit(decided)
    error = TrainingError(Problem("step 3", rule="a bad sample"))
    ending.write(decided.paths.folder, ending.failed(error, Outcome(), Holder(1, "t", "there", 7, attempt=1)))
    (status,) = watched(cluster)
    assert (status.phase, status.exit_code, status.reason) == ("failed", 5, "step 3: a bad sample")
    assert JobRemote(cluster.address, None, NAME).diagnose().remedy == attempts.REMEDIES[5]


def test_a_file_of_another_attempt_or_one_out_of_reach_says_nothing(
    cluster: Cluster, plan: Callable[..., TrainPlan]
) -> None:
    cluster.fates = [[ended(5, "error: step 3: a bad sample")]]
    decided = plan()
    job.submit(decided)
    for folder, attempt in ((decided.paths.folder, 7), (f"{decided.paths.folder}-other", 1)):
        error, driver = (
            TrainingError(Problem("run", rule="of another")),
            Holder(1, "t", "h", 1, attempt=attempt),
        )
        ending.write(folder, ending.failed(error, Outcome(), driver))
    assert JobRemote(cluster.address, None, NAME).status().reason == "error: step 3: a bad sample"


@pytest.fixture
def study(cluster: Cluster, tmp_path: Path) -> TunePlan:
    target = ("target=job", f"target.address={cluster.address}", f"experiment.storage={tmp_path}/storage")
    space = "tuning={metric: eval/mse, mode: min, space: {training.optimizer.lr: {uniform: [0.1, 1.0]}}}"
    return plan_tuning(load(TINY, [*target, space, "target.retries=1"]), NAME)


def test_a_study_is_a_job_whose_attempts_have_its_command_and_its_folder(
    cluster: Cluster, study: TunePlan
) -> None:
    cluster.fates = [[{"status": "RUNNING"}, DIED], [{"status": "RUNNING"}, {"status": "SUCCEEDED"}]]
    assert remote.submit(study, ("--resume",)).name == NAME
    assert [(status.phase, status.attempt) for status in watched(cluster)][-1] == ("succeeded", 2)
    first, second = cluster.jobs.values()
    assert first["entrypoint"] == second["entrypoint"] == "python -m raystack.tune config.yaml --resume"
    assert first["metadata"]["raystack_folder"] == study.paths.folder
    assert second["metadata"] == {**first["metadata"], "raystack_attempt": "2"}


def test_a_study_has_no_schedule(study: TunePlan) -> None:
    target = KubeRay(kind="kuberay", image="x", cron=Cron(schedule="@daily"))
    with pytest.raises(PlanError, match=r"target\.cron\.schedule: a schedule trains"):
        remote.planned(replace(study, config=study.config.model_copy(update={"target": target})))


def test_trials_run_beside_the_driver_which_asks_for_none_of_their_gpus(
    cluster: Cluster, study: TunePlan
) -> None:
    resources = study.config.resources.model_copy(update={"gpus_per_worker": 1})
    cluster.fates = [[{"status": "RUNNING"}]]
    remote.submit(replace(study, config=study.config.model_copy(update={"resources": resources})))
    (sent,) = cluster.jobs.values()
    assert json.loads(sent["metadata"]["raystack_request"]) == {}


def test_the_record_that_an_earlier_job_left_of_a_study_says_nothing_of_this_one(
    cluster: Cluster, study: TunePlan
) -> None:
    error = TrainingError(Problem("trial 3", rule="of another job"))
    old = ending.failed(error, Outcome(), Holder(1, "t", "h", 1, job="before", attempt=1))
    ending.write(study.paths.folder, old)
    started = (old.finished_at + 1) * 1000
    cluster.fates = [
        [{"start_time": started, **ended(2, "error: tuning.name: there is a study of that name")}]
    ]
    remote.submit(study)
    assert watched(cluster)[-1].reason == "error: tuning.name: there is a study of that name"


def test_a_job_that_was_cancelled_tells_of_its_checkpoint(
    cluster: Cluster, plan: Callable[..., TrainPlan]
) -> None:
    cluster.fates = [[{"status": "RUNNING"}, {"status": "STOPPED"}]]
    decided = plan()
    job.submit(decided)
    reached = Outcome(run_id=NAME, step=8, checkpoint=f"{decided.paths.checkpoints}/step-0000000008")
    stopped = PausedError(Problem("step 8", rule="the run stopped as it was told to"), "terminate")
    driver = Holder(1, "token", "there", 7, job=NAME, attempt=1)
    ending.write(decided.paths.folder, ending.failed(stopped, reached, driver))
    status = JobRemote(cluster.address, None, NAME).cancel()
    assert (status.phase, status.exit_code, status.checkpoint) == ("stopped", 75, reached.checkpoint)
    assert status.reason == "step 8: the run stopped as it was told to"


@pytest.mark.parametrize(
    ("told", "lost"),
    [
        (DIED, True),
        (
            {"status": "FAILED", "error_type": "JOB_SUPERVISOR_ACTOR_START_FAILURE", "driver_node_id": "n"},
            True,
        ),
        ({"status": "FAILED", "error_type": "JOB_SUPERVISOR_ACTOR_START_FAILURE"}, False),
        ({"status": "FAILED", "error_type": "RUNTIME_ENV_SETUP_FAILURE"}, False),
        (ended(137), True),
        (ended(PausedError.exit_code), True),
        (ended(6), False),
        ({"status": "STOPPED"}, False),
        ({"status": "RUNNING"}, False),
    ],
)
def test_a_driver_is_lost_when_it_was_taken_away(told: dict[str, Any], lost: bool) -> None:
    (attempt,) = attempts.read([{"submission_id": "other", **told}], "other")
    assert attempt.lost is lost
    assert not attempt.goes_on


def test_two_that_wait_for_one_job_start_its_next_attempt_once(
    cluster: Cluster, plan: Callable[..., TrainPlan]
) -> None:
    cluster.fates = [
        [{"status": "RUNNING"}, *[{}] * 20, DIED],
        [*[{"status": "RUNNING"}] * 20, {"status": "SUCCEEDED"}],
    ]
    job.submit(plan("target.retries=1"))
    ends: list[Status] = []
    both = [threading.Thread(target=lambda: ends.append(watched(cluster)[-1])) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(20)
    assert [(end.phase, end.attempt) for end in ends] == [("succeeded", 2)] * 2
    assert list(cluster.jobs) == [f"{NAME}-a1", f"{NAME}-a2"]


def test_a_job_that_goes_on_is_not_submitted_beside_itself_and_one_that_ended_is_counted_on(
    cluster: Cluster, plan: Callable[..., TrainPlan]
) -> None:
    cluster.fates = [[*[{"status": "RUNNING"}] * 3, ended(5)], [{"status": "RUNNING"}]]
    job.submit(plan())
    with pytest.raises(LaunchError, match=rf"job/{NAME}: it still goes on \(got {NAME}-a1\)"):
        job.submit(plan())
    watched(cluster)
    assert job.submit(plan()).attempt == 2
    assert [(status.name, status.attempt) for status in job.jobs(cluster.address, None)] == [(NAME, 2)]
    assert [attempt.number for attempt in JobRemote(cluster.address, None, f"{NAME}-a1").attempts()] == [1, 2]


def test_tokens(
    cluster: Cluster, plan: Callable[..., TrainPlan], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cluster.token, cluster.fates = "right", [[{"status": "RUNNING"}]]
    with pytest.raises(
        LaunchError,
        match=r"target.token: the cluster asks for a token, and there is none .*; set RAY_AUTH_TOKEN",
    ):
        job.submit(plan())
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
    with pytest.raises(LaunchError, match=r"target\.token: the cluster refuses the token"):
        job.submit(plan())
    (tmp_path / "token").write_text("right\n")
    assert job.submit(plan(f"target.token='secret:file:{tmp_path}/token'")).phase == "running"
    assert "right" not in json.dumps(list(cluster.jobs.values()))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "right")
    assert JobRemote(cluster.address, None, NAME).status().phase == "running"


def test_places_that_are_no_cluster(cluster: Cluster) -> None:
    closed = Cluster()
    closed.server_close()
    with pytest.raises(
        LaunchError, match=r"target.address: no Ray dashboard answers there: .*refused.* \(got http://127"
    ):
        JobRemote(closed.address, None, NAME).status()
    with pytest.raises(LaunchError, match="no Ray dashboard answers there"):
        JobRemote("no-such-host.invalid:8265", None, NAME).status()
    gone = JobRemote(cluster.address, None, "nothing")
    assert gone.status().phase == "gone"
    for ask in (gone.diagnose, gone.cancel, lambda: list(gone.logs(follow=True, everything=False))):
        with pytest.raises(LaunchError, match="job/nothing: the cluster knows no such job"):
            ask()
    for refused in (gone.suspend, gone.resume, lambda: gone.scale(3)):
        with pytest.raises(
            LaunchError, match=r"a job of the Ray Jobs API cannot be (suspended|resumed|scaled); "
        ):
            refused()


def test_a_folder_as_storage_is_warned_of_where_the_cluster_is_elsewhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def warnings(storage: str, address: str) -> list[str]:
        caplog.clear()
        job._warn_of_storage(storage, address)
        return [record.getMessage() for record in caplog.records]

    (text,) = warnings("/home/me/raystack", "https://ray.example:8265")
    assert re.search(
        r"experiment.storage=/home/me/raystack is a folder: on the cluster at https://ray.example:8265", text
    )
    assert (
        warnings("s3://bucket", "https://ray.example:8265")
        == warnings("/home/me/raystack", "http://127.0.0.1:8265")
        == []
    )


def test_a_run_answers_when_its_cluster_is_gone(
    cluster: Cluster, plan: Callable[..., TrainPlan], tmp_path: Path
) -> None:
    cluster.fates = [[ended(5, "error: step 2: not a number")]]
    made = plan("target.retries=0")
    folder, storage = Path(made.paths.folder), made.config.experiment.storage
    folder.mkdir(parents=True)
    job.submit(made)
    last = watched(cluster)[-1]
    holder, error = Holder(1, "t", "host", 1, NAME, 1), TrainingError(Problem("step 2", rule="not a number"))
    ending.write(str(folder), ending.failed(error, Outcome(step=1), holder))
    gone = JobRemote("http://127.0.0.1:1", None, f"{NAME}-a1", storage)
    now = gone.status()
    assert (now.phase, now.exit_code, now.step) == (last.phase, 5, 1) == ("failed", 5, 1)
    lines = [line.text for line in gone.logs(follow=False, everything=False)]
    assert lines[-1] == "error: step 2: not a number"
    assert gone.diagnose().cause == "step 2: not a number"
    with pytest.raises(LaunchError, match=r"127\.0\.0\.1:1"):
        JobRemote("http://127.0.0.1:1", None, "other", storage).status()
