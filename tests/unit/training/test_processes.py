"""What a run in processes of this machine promises: no Ray, the losses of any other run, and everything that
goes wrong survived or told.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest
import torch
from driver import TINY, attempts, kill, pid, steps
from processes import ROOT, Command
from safetensors.torch import load_file

from raystack.checkpoint import CheckpointStore
from raystack.config import load
from raystack.environment import gpus
from raystack.errors import ConfigError, ExhaustedError, PlanError, RaystackError, TrainingError
from raystack.events import Event, Stepped
from raystack.experiment import Experiment
from raystack.plan import TrainPlan, plan_training, plan_tuning
from raystack.training.driver.fit import fit

PlanTiny = Callable[..., TrainPlan]
MARK = "RAYSTACK_TEST_MARK"
AGAIN_S = 0.8
"""Seconds between two signals that are two requests."""
LENGTH, BATCH, EPOCHS = 330, 32, 4


def losses(plan: TrainPlan) -> dict[int, float]:
    events: list[Event] = []
    fit(plan, events.append, resume=False)
    return {event.step: event.metrics["train/loss"] for event in events if isinstance(event, Stepped)}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """The losses of one worker in this process."""
    config = load(TINY, [f"experiment.storage={tmp_path_factory.mktemp('alone')}", "strategy=ddp"])
    return losses(plan_training(config, "tiny-alone"))


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "zero2"])
def test_every_strategy_has_the_losses_of_one_worker(
    strategy: str, alone: dict[int, float], plan_tiny: PlanTiny
) -> None:
    two = losses(plan_tiny("resources=processes2", f"strategy={strategy}", "training.data.loaders=1"))
    assert len(alone) == 6
    assert two == pytest.approx(alone, rel=1e-5)


class Run(Command):
    """`python -m raystack.train tests/tiny/config.yaml resources=processes2 ...`; all of its processes have a
    mark in their environment.
    """

    def __init__(self, storage: Path, *arguments: str) -> None:
        self.ledger = storage / "ledger"
        self.ledger.mkdir(exist_ok=True)
        self.mark = uuid4().hex
        task = f"task.args={{length: {LENGTH}, step_s: 0.04, dropout: 0.1, ledger: {self.ledger}}}"
        words = ["resources=processes2", f"experiment.storage={storage}", task, f"training.epochs={EPOCHS}"]
        words += [f"training.batch.global={BATCH}", "training.checkpoint={every_steps: 2, keep_last: 3}"]
        environment = {**os.environ, MARK: self.mark}
        super().__init__([sys.executable, "-m", "raystack.train", str(TINY), *words, *arguments], environment)

    def left(self) -> dict[int, str]:
        """The command lines of its processes that run, by process id; none of them after ten seconds."""
        deadline = time.monotonic() + 10
        while (running := marked(self.mark)) and time.monotonic() < deadline:
            time.sleep(0.05)
        return running

    def trained(self, count: int, attempt: int = 1) -> list[Path]:
        """Wait until both workers of the attempt are so many steps far; returns their pages."""
        deadline = time.monotonic() + 120
        while True:
            groups = attempts(self.ledger, 2)
            if len(groups) == attempt and len(groups[-1]) == 2 and len(steps(groups[-1])) >= count:
                return groups[-1]
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.01)


def marked(mark: str) -> dict[int, str]:
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes():
                found[int(process.name)] = (process / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue  # it has ended, or is another user's
    return {process: words for process, words in found.items() if words}  # a zombie has none


def test_what_is_killed_costs_no_sample_and_changes_no_weight(tmp_path: Path) -> None:
    (tmp_path / "unbroken").mkdir()
    unbroken = Run(tmp_path / "unbroken")
    (tmp_path / "broken").mkdir()
    run = Run(tmp_path / "broken", "training.data.loaders=1")
    kill(run.trained(5)[1])
    (lost,) = run.until(r"its process is gone")
    assert re.search(r"warning: rank \d: its process is gone; goes on from step \d+ \(lost: 1 of 10", lost)
    (agent,) = {parent(pid(page)) for page in run.trained(5, attempt=2)}
    os.kill(agent, signal.SIGKILL)
    run.until(r"the process that starts the workers is gone .* goes on from step")
    run.trained(5, attempt=3)
    run.kill()
    assert run.left() == {}
    last = Run(tmp_path / "broken", "--resume")
    assert (last.wait(), unbroken.wait()) == (0, 0), last.output + unbroken.output

    starts = [int(found[1] or 0) for found in started(run.output + last.output)]
    pages = [steps(each) for each in attempts(run.ledger, 2)]
    ends = [*starts[1:], starts[-1] + len(pages[-1])]
    consumed = [
        ids for run, start, end in zip(pages, starts, ends, strict=True) for ids in run[: end - start]
    ]
    assert consumed == steps(attempts(unbroken.ledger, 2)[0])
    expected, got = weights(tmp_path / "unbroken"), weights(tmp_path / "broken")
    for name, tensor in expected.items():
        assert torch.equal(got[name], tensor), name


def started(output: str) -> list["re.Match[str]"]:
    """The lines that tell of an attempt's start; the group is the step, of one that has gone on from one."""
    return list(re.finditer(r"^[\d,]+ parameters, .*?(?:from step (\d+))?$", output, re.MULTILINE))


def parent(process: int) -> int:
    return int(Path("/proc", str(process), "stat").read_text().rpartition(")")[2].split()[1])


def weights(storage: Path) -> dict[str, torch.Tensor]:
    (folder,) = (storage / "runs").iterdir()
    store = CheckpointStore(str(folder / "checkpoints"))
    step = store.newest()
    assert step is not None
    return load_file(f"{store.folder(step)}/model/model.safetensors")


@pytest.mark.parametrize("whom", ["group", "all"])
def test_sigterm_ends_it_after_a_step_with_its_checkpoint(whom: str, tmp_path: Path) -> None:
    run = Run(tmp_path, "training.checkpoint.every_steps=1000", "training.data.loaders=1")
    run.trained(3)
    send(run, signal.SIGTERM, whom)
    assert run.wait() == 75, run.output
    (told,) = re.findall(r"paused: step (\d+): the run stopped as it was told to, with the check", run.output)
    assert len(steps(attempts(run.ledger, 2)[0])) == int(told)
    assert run.left() == {}


def send(run: Run, number: signal.Signals, whom: str) -> None:
    """To the driver, to its process group, or to all that it has started too, as systemd and Slurm do."""
    if whom == "group":
        os.killpg(run.process.pid, number)
        return
    for process in [run.process.pid, *(marked(run.mark).keys() - {run.process.pid} if whom == "all" else ())]:
        with suppress(
            ProcessLookupError
        ):  # some live for a moment only, such as what a library asks the system by
            os.kill(process, number)


@pytest.mark.parametrize(
    ("numbers", "whom"),
    [((signal.SIGINT,), "all"), ((signal.SIGTERM, signal.SIGTERM), "driver")],
)
def test_ctrl_c_and_a_second_sigterm_end_it_at_once(
    numbers: tuple[signal.Signals, ...], whom: str, tmp_path: Path
) -> None:
    # A step takes longer than the test, so nothing ends with a checkpoint.
    run = Run(tmp_path, f"task.args={{length: {LENGTH}, step_s: 600, ledger: {tmp_path / 'ledger'}}}")
    run.trained(1)
    for number in numbers:
        send(run, number, whom)
        time.sleep(AGAIN_S if len(numbers) > 1 else 0)
    assert run.wait(60) == 130, run.output
    assert run.output.splitlines()[-1] == "interrupted"
    assert "Traceback" not in run.output
    assert run.left() == {}


@pytest.mark.parametrize("kind", ["TERM", "INT"])
def test_a_signal_before_the_workers_train_ends_it_with_a_line(kind: str, tmp_path: Path) -> None:
    run = Run(tmp_path)
    deadline = time.monotonic() + 60
    while not any("driver.agent" in words for words in marked(run.mark).values()):
        assert time.monotonic() < deadline, run.output
        time.sleep(0.01)
    send(run, signal.Signals[f"SIG{kind}"], "all")
    assert run.wait(60) in ((75, 130) if kind == "TERM" else (130,)), run.output
    (line,) = [line for line in run.output.splitlines() if re.match("interrupted|paused: ", line)]
    assert line
    assert "Traceback" not in run.output
    assert run.left() == {}


def test_a_worker_that_hangs_is_named_and_the_run_goes_on_without_it(
    plan_tiny: PlanTiny, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    ledger.mkdir()
    plan = plan_tiny(
        "resources=processes2",
        f"task.args={{length: 330, step_s: 0.02, hang_at: 15, ledger: {ledger}}}",
        "training.checkpoint.every_steps=2",
        "training.watchdog={multiple: 10, min_s: 2}",
        "training.faults.hang={times: 1}",
    )
    events: list[str] = []
    outcome = fit(plan, lambda event: events.append(str(event)), resume=False)
    assert outcome.step == 21
    (alarm,) = [event for event in events if event.startswith("Alarm")]
    named = re.search(r"rank \d \(pid (\d+)", alarm)
    assert named is not None, alarm
    assert named[1] == (ledger / "hung").read_text()
    assert re.search(r"task\.py:\d+ in loss", alarm)
    assert any("goes on from step" in event and "hang: 1 of 1" in event for event in events)


@pytest.mark.parametrize(
    ("how", "kind", "text"),
    [
        (
            "raise_at: 3",
            TrainingError,
            r"step 3, rank \d: ValueError: a bad sample; see task.py:\d+; last good .*step-0000000002",
        ),
        (
            "end: exit",
            TrainingError,
            r"rank 1: its process is gone \(got status 3\); it may say why in .*\.txt",
        ),
        ("end: crash", TrainingError, r"rank 1: its process is gone \(got SIGSEGV\)"),
        ("end: quit", TrainingError, r"rank 1: the task ended its process \(got status 0\)"),
        ("end: memory", ExhaustedError, r"step \d+, rank 1: MemoryError"),
    ],
)
def test_what_ends_a_worker_is_told(
    how: str, kind: type[RaystackError], text: str, plan_tiny: PlanTiny, tmp_path: Path
) -> None:
    entry = (
        [] if how.startswith("raise_at") else [f"task.folder={ending(tmp_path)}", "task.entry=ending:Ending"]
    )
    plan = plan_tiny(
        "resources=processes2",
        f"task.args={{{how}}}",
        "training.checkpoint.every_steps=1",
        "training.faults={lost: {times: 0}, memory: {times: 0}}",
        *entry,
    )
    with pytest.raises(kind, match=text) as raised:
        fit(plan, lambda event: None, resume=False)
    assert "go on with --resume" in str(raised.value)


def ending(folder: Path) -> Path:
    """The folder of a task whose second worker ends in an odd way in its third step."""
    lines = [
        "import os, signal, sys",
        f"sys.path.insert(0, {str(TINY.parent)!r})",
        "from task import Tiny",
        "",
        "class Ending(Tiny):",
        "    def __init__(self, end):",
        "        super().__init__()",
        "        self.end = end",
        "    def loss(self, model, batch):",
        "        if self.passes == 2 and os.environ['RANK'] == '1':",
        "            if self.end == 'memory':",
        "                raise MemoryError",
        "            print('its last words', flush=True)",
        "            {'exit': lambda: os._exit(3), 'quit': sys.exit,",
        "             'crash': lambda: os.kill(os.getpid(), signal.SIGSEGV)}[self.end]()",
        "        return super().loss(model, batch)",
    ]
    (folder / "odd").mkdir()
    (folder / "odd" / "ending.py").write_text("\n".join(lines))
    return folder / "odd"


@pytest.mark.parametrize("verbose", [False, True])
def test_stdout_has_the_result_alone_and_what_a_task_prints_is_kept(
    verbose: bool, tmp_path: Path, plan_tiny: PlanTiny
) -> None:
    task = [f"task.folder={chatty(tmp_path)}", "task.entry=chatty:Chatty"]
    words = ["resources=processes2", *task, f"experiment.storage={tmp_path}", "--json", *["-v"] * verbose]
    done = subprocess.run(
        [sys.executable, "-m", "raystack.train", str(TINY), *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert ("said by a worker" in done.stderr) == verbose
    log = Path(
        os.environ.get("TMPDIR", "/tmp"), f"raystack-{os.getuid()}", "logs", f"{outcome['run_id']}.txt"
    )
    assert verbose or log.read_text().count("said by a worker") >= 2


def chatty(folder: Path) -> Path:
    (folder / "chatty").mkdir()
    lines = [
        "import sys",
        f"sys.path.insert(0, {str(TINY.parent)!r})",
        "from task import Tiny",
        "class Chatty(Tiny):",
        "    def model(self):",
        "        print('said by a worker', flush=True)",
        "        return super().model()",
    ]
    (folder / "chatty" / "chatty.py").write_text("\n".join(lines))
    return folder / "chatty"


def test_nothing_of_ray_is_started(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.trained(3)
    words = marked(run.mark).values()
    assert not [each for each in words if re.search("gcs_server|raylet|ray::", each)]
    assert len(words) == 4  # the driver, the agent and the workers
    run.terminate()
    run.wait()


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["resources.workers=[1,2]"], r"resources.workers: .* \(got \[1,2\]\); set resources.workers=2"),
        (
            ["target=job"],
            r"resources.launcher: .* \(got processes with target=job\); set resources.launcher=ray",
        ),
        (["resources.placement=SPREAD"], r"resources.placement: .*; drop it, or set resources.launcher=ray"),
        (["resources.wait_s=5"], r"resources.wait_s: "),
        (["resources.custom={rack: 1}"], r"resources.custom: "),
        (
            ["target.dashboard=true"],
            r"target.dashboard: .*; set resources.launcher=ray, or target.dashboard=false",
        ),
    ],
)
def test_what_processes_cannot_do_is_refused_with_the_remedy(overrides: list[str], text: str) -> None:
    with pytest.raises(PlanError, match=text):
        Experiment(TINY, "resources=processes2", *overrides).plan()


def test_a_study_is_rays() -> None:
    study = "tuning={space: {training.optimizer.lr: {choice: [0.1, 0.2]}}, metric: eval/error}"
    with pytest.raises(
        PlanError, match=r"resources.launcher: .* \(got processes\); set resources.launcher=ray"
    ):
        plan_tuning(load(TINY, ["resources=processes2", f"+{study}"]), "study")


@pytest.mark.parametrize(
    "overrides",
    [
        ["resources.launcher=processes"],
        ["resources.workers=gpus"],
        ["resources=processes", "resources.gpus_per_worker=0"],
    ],
)
def test_a_launcher_and_workers_that_do_not_go_together_are_a_mistake(overrides: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"resources"):
        load(TINY, overrides)


@pytest.mark.parametrize(
    ("names", "devices", "count"),
    [
        (None, ["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"], 2),
        ("1", ["nvidia0", "nvidia1"], 1),
        ("0,-1,1", ["nvidia0", "nvidia1"], 1),
        ("", ["nvidia0"], 0),
        (None, ["null"], 0),
    ],
)
def test_there_is_one_worker_for_each_gpu_that_is_visible(
    names: str | None, devices: list[str], count: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for device in devices:
        (tmp_path / device).touch()
    monkeypatch.setattr(gpus, "DEVICES", str(tmp_path))
    if names is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", names)
    assert gpus.visible() == count
    experiment = Experiment(TINY, "resources=processes")
    if count:
        assert dict(experiment.plan().rows)["workers"].startswith(
            f"{count} in processes of this machine, cuda"
        )
    else:
        with pytest.raises(PlanError, match=r"it has none \(got gpus\); set resources=processes2"):
            experiment.plan()
