"""The training loop, as each worker runs it. It reads top to bottom and does not know which strategy
it runs.
"""

import math
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from raystack import config as configs
from raystack.checkpoint import (
    CONFIG,
    MODEL,
    CheckpointStore,
    Manifest,
    ModelSpec,
    describe_parameters,
    ranked,
    write_spec,
)
from raystack.checkpoint.fence import Fence
from raystack.checkpoint.weights import read_model
from raystack.code.archive import unpack
from raystack.code.loading import blame, call, load, trace
from raystack.errors import (
    ConfigError,
    ExhaustedError,
    PausedError,
    Problem,
    RaystackError,
    TrainingError,
    WorkerLostError,
    nearest,
)
from raystack.events import Evaluated, Finished, Listener, Saved, Started, Stepped
from raystack.plan import TrainPlan
from raystack.plan.scale import peak_flops
from raystack.task import CountsTokens, Demonstrates, HasBlocks
from raystack.training import resume
from raystack.training import strategy as strategies
from raystack.training.async_checkpointer import AsyncCheckpointer
from raystack.training.data import (
    BatchPlan,
    eval_batches,
    open_eval_data,
    open_train_data,
    sample_order,
    size,
    to_device,
    training_batches,
)
from raystack.training.evaluate import evaluate
from raystack.training.graceful_stop import GracefulStop
from raystack.training.optimizer import learning_rate, make_optimizer
from raystack.training.recompute import recompute
from raystack.training.throughput import Throughput
from raystack.training.watchdog.heartbeat import HeartbeatSender
from raystack.training.world import World


@dataclass(frozen=True)
class WorkerSpec:
    """What the driver sends to each worker."""

    plan: TrainPlan
    code: bytes | None
    """The task's folder as an archive; None for an installed package."""
    fence: Fence | None = None
    """What is asked before anything is published; None where nobody else could take the run."""
    token: str = field(default_factory=lambda: secrets.token_hex(3))
    """Of this driver. Two that begin in one moment may have the same number."""

    def attempt_name(self, attempt: int) -> str:
        """Name of an attempt that no other one has, of this driver or of another: checkpoints are kept apart
        by it.
        """
        driver = self.fence.holder.number if self.fence is not None else 0
        return f"{driver}-{attempt}-{self.token}"


def train(
    job: WorkerSpec, world: World, tell: Listener, graceful_stop: GracefulStop, heartbeats: HeartbeatSender
) -> Finished:
    """Run the training on this worker, from the run's newest good checkpoint if it has one; returns what it
    ended with.

    `tell` is called on rank 0 only. Raises PausedError where `graceful_stop` ended it at a step with a
    checkpoint.
    """
    run = _Run(job, world, tell if world.rank == 0 else lambda event: None, graceful_stop, heartbeats)
    try:
        run.prepare()
        return run.train()
    except RaystackError:
        raise
    except Exception as error:
        run.close()  # before the error says which checkpoint is the last good one
        raise run.failure(error) from error
    finally:
        run.close()


class _Run:
    """The state of one worker's training: what was built from the plan, and the position in the data."""

    def __init__(
        self,
        job: WorkerSpec,
        world: World,
        tell: Listener,
        graceful_stop: GracefulStop,
        heartbeats: HeartbeatSender,
    ) -> None:
        plan = self.plan = job.plan
        self.world, self.tell, self.code, self.graceful_stop, self.heartbeats = (
            world,
            tell,
            job.code,
            graceful_stop,
            heartbeats,
        )
        self.attempt = job.attempt_name(world.attempt)
        self.folder = unpack(job.code) if job.code is not None else None
        self.store = CheckpointStore(plan.paths.checkpoints, job.fence)
        self.checkpointer = AsyncCheckpointer(self.store, world, plan.training.checkpoint, self._fill)
        self.first = self.step = 0
        self.saved: int | None = None
        """Step of the last checkpoint that was published; rank 0 hears of it."""
        self.losses: list[Tensor] = []
        """Of the steps since the last report, on the device: reading one would wait for it."""

    def prepare(self) -> None:
        """Build everything, and read the checkpoint to go on from."""
        plan, world = self.plan, self.world
        torch.set_num_threads(plan.workers.threads)
        found = resume.find(self.store, world, self.tell)
        torch.manual_seed(plan.seed)
        self.task = load(plan.config.task.model_copy(update={"folder": self.folder}))
        self.tokens_of: Callable[[Any], int] = (
            self.task.tokens if isinstance(self.task, CountsTokens) else lambda batch: 0
        )
        self.train_data = open_train_data(
            call("train_data", self.task.train_data, folder=self.folder), plan.training
        )
        self.length = size(self.train_data)
        """Samples of an epoch; None for a stream that does not say."""
        eval_data = call("eval_data", self.task.eval_data, folder=self.folder)
        self.eval_data = open_eval_data(eval_data, plan.training) if eval_data is not None else None
        self.batch = plan.batch_on(world.size)
        self.schedule = BatchPlan(self.batch, self._total_samples(), world.rank)
        model: nn.Module = call("model", self.task.model, folder=self.folder)
        self.card = ModelSpec(
            plan.config.task.entry,
            plan.config.task.args,
            self.task.signature,
            plan.run_id,
            0,
            {},
            describe_parameters(model),
        )
        self.parameters = sum(
            parameter.numel() for parameter in model.parameters() if parameter.requires_grad
        )
        blocks = list(self.task.blocks(model)) if isinstance(self.task, HasBlocks) else []
        if plan.training.gradient_checkpointing:
            recompute(blocks)
        if plan.training.compile:
            for block in blocks or [model]:
                block.compile()
        self.strategy = strategies.build(
            plan, model, blocks, partial(make_optimizer, plan.training.optimizer), world
        )
        self.strategy.state()  # what a checkpoint cannot hold is told now, and not hours later
        self._check_best()
        if found is not None:
            self._restore(found)

    def _restore(self, found: Manifest) -> None:
        from raystack.checkpoint.sharded import read  # takes a second, which a new run does not pay

        resume.check(self.plan, found, self.length)
        with self.store.fetch(found.step, found.state) as folder:
            self.strategy.load(partial(read, folder))
        self.first = self.step = self.saved = found.step

    def train(self) -> Finished:
        """From where the run stands to its end."""
        plan, schedule, cadence = self.plan, self.schedule, self.plan.cadence
        self.tell(self._started())
        batches = self._batches()
        throughput: Throughput | None = None

        for step in range(self.step, schedule.steps):
            done = step + 1
            report = done % cadence.log == 0 or done == schedule.steps or step == self.first
            self.graceful_stop.begin(step)
            self.heartbeats.begin(step)
            self.world.seed(_step_seed(plan.seed, step, self.world.rank))
            if throughput is None:
                loss, throughput = self._first_step(step, batches)
            else:
                loss = self._forward_backward(step, batches, throughput, precise=report)
            self.checkpointer.copied()
            self.heartbeats.enter("optimizer")
            with throughput.part("optimizer"):
                lr = learning_rate(plan.training.optimizer.lr, plan.training.schedule, step, schedule.steps)
                norm = self.strategy.step(
                    lr, plan.training.clip_norm, want_norm=report or _due(done, cadence.checkpoint)
                )
            self.heartbeats.enter("idle")
            self.losses.append(loss)
            if step > self.first:
                throughput.end(schedule.consumed(done) - schedule.consumed(step), self.tokens)
            self.step = done

            stop = self.graceful_stop.due(step)
            last = done == schedule.steps
            evaluates = last or _due(done, cadence.evaluate)
            saves = last or stop is not None or _due(done, cadence.checkpoint)
            if report or saves:
                self._report(done, lr, norm, throughput)
            metrics = self._evaluate(done) if evaluates else {}
            if saves:
                self._save(done, metrics, complete=last or stop is not None)
            if stop is not None and not last:
                raise PausedError(_paused(done, self.store.folder(done)), stop)
            compiled = plan.training.compile and step == self.first + 1
            if evaluates or saves or step == self.first or compiled:
                throughput.restart()
        return self._finished()

    def _forward_backward(
        self, step: int, batches: Iterator[Any], throughput: Throughput, *, precise: bool
    ) -> Tensor:
        """Gradients of a whole step on this worker. Returns its part of the step's mean loss, on the
        device.
        """
        throughput.begin(precise=precise)
        micro_batches = self.schedule.micro_batches(step)
        losses: list[Tensor] = []
        self.tokens = 0
        for micro_batch in micro_batches:
            self.heartbeats.enter("data")
            with throughput.part("data"):
                batch = to_device(next(batches), self.world.device)
                self.tokens += self.tokens_of(batch) if micro_batch.weight else 0
            with self.strategy.micro_step(last=micro_batch is micro_batches[-1]):
                self.heartbeats.enter("forward")
                with throughput.part("forward"), self.strategy.autocast():
                    loss = self.task.loss(self.strategy.module, batch)
                    loss = loss if micro_batch.weight == 1.0 else loss * micro_batch.weight
                self.heartbeats.backward(loss)
                with throughput.part("backward"):
                    self.strategy.backward(loss)
            losses.append(loss.detach())
        return sum(losses[1:], losses[0])

    def _first_step(self, step: int, batches: Iterator[Any]) -> tuple[Tensor, Throughput]:
        """The first step counts the floating point operations of all; it is slower for that and times
        nothing.
        """
        throughput = Throughput(self.world, peak_flops(self.world.device_name, self.plan.training.precision))
        # Under a dispatch mode the compiler would give a block up for good; told to stay out, it compiles in
        # the next step.
        with torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter:
            loss = self._forward_backward(step, batches, throughput, precise=False)
        throughput.flops_per_step = float(counter.get_total_flops())
        return loss, throughput

    def _report(self, done: int, lr: float, norm: Tensor | None, throughput: Throughput) -> None:
        """Bring the workers' losses together; all of them stop here if one is not finite."""
        losses = torch.stack(self.losses).tolist()
        self.losses.clear()
        first_bad = next((index for index, loss in enumerate(losses) if not math.isfinite(loss)), math.inf)
        everyone = self.world.gather([losses[-1], done - len(losses) + 1 + first_bad])
        bad = min(row[1] for row in everyone)
        if math.isfinite(bad):
            self.close()
            raise TrainingError(
                Problem(
                    f"step {int(bad)}",
                    rule="the loss is not a finite number",
                    remedy=f"lower the learning rate or clip; {self.last_good()}",
                )
            )
        if norm is not None and not math.isfinite(float(norm)) and self.plan.training.precision != "fp16":
            self.close()
            remedy = f"clip, or lower the learning rate; {self.last_good()}"
            raise TrainingError(
                Problem(f"step {done}", rule="the gradient is not a finite number", remedy=remedy)
            )
        metrics = {
            "train/loss": math.fsum(row[0] for row in everyone) / self.world.size,
            "train/lr": lr,
            **({"train/epoch": self.schedule.consumed(done) / self.length} if self.length else {}),
            **({"train/grad_norm": float(norm)} if norm is not None else {}),
            **throughput.report(),
        }
        if (communication := self.strategy.communication_s()) is not None:
            metrics["speed/communication_s"] = communication
        self.tell(Stepped(done, metrics))
        self._tell_saved()

    def _evaluate(self, done: int) -> dict[str, float]:
        if self.eval_data is None:
            return {}
        self.heartbeats.enter("evaluate")
        plan, world = self.plan, self.world
        pin = world.device.type == "cuda"
        batches = eval_batches(
            self.task, self.eval_data, plan.eval_batch, world.rank, world.size, plan.training.data, pin
        )
        with self.strategy.autocast():
            metrics = evaluate(self.task, self.strategy.module, batches, world)
        self.tell(Evaluated(done, metrics))
        return metrics

    def _save(self, done: int, metrics: dict[str, float], *, complete: bool) -> None:
        """Begin a checkpoint; with `complete`, return when it is published."""
        self.heartbeats.enter("save")
        plan = self.plan
        manifest = Manifest(
            run_id=plan.run_id,
            step=done,
            samples=self.schedule.consumed(done),
            dataset_length=self.length,
            seed=plan.seed,
            global_batch=self.batch.global_,
            world_size=self.world.size,
            strategy=plan.training.strategy.kind,
            attempt=self.attempt,
            shuffle=plan.training.data.shuffle,
            bucket=plan.training.data.bucket,
            metrics=metrics,
        )
        if complete:
            self.checkpointer.wait()
        self.checkpointer.save(manifest, self.strategy.state())
        if complete:
            self.checkpointer.wait()
        self._tell_saved()

    def _tell_saved(self) -> None:
        for event in self.checkpointer.events():
            if isinstance(event, Saved):
                self.saved = event.step
            self.tell(event)

    def _fill(self, manifest: Manifest, folder: Path) -> None:
        """What a checkpoint has beside its state. Runs on rank 0, while training goes on."""
        (folder / CONFIG).write_text(configs.dump(self.plan.config), encoding="utf-8")
        (folder / MODEL).mkdir()
        write_spec(
            folder / MODEL, replace(self.card, step=manifest.step, metrics=manifest.metrics), self.code
        )

    def _finished(self) -> Finished:
        """Rank 0 gives the chosen checkpoint full weights, which is what is registered, served and shown."""
        if self.world.rank > 0:
            return Finished(self.step, self.step)
        from raystack.checkpoint.export import export

        best = self.plan.training.checkpoint.keep_best
        manifests = self.store.manifests()
        chosen = next(iter(ranked(manifests, best) if best else ()), None) or manifests[-1]
        export(self.store, chosen)
        text = None
        if isinstance(self.task, Demonstrates):
            with self.store.fetch(chosen.step, MODEL) as folder, torch.inference_mode():
                task, model, _ = read_model(folder)  # on the CPU: the device still holds the training
                text = task.demonstrate(model) if isinstance(task, Demonstrates) else None
        return Finished(self.step, chosen.step, chosen.metrics, text)

    def _started(self) -> Started:
        evals = (size(self.eval_data) or 0) if self.eval_data is not None else 0
        world = self.world
        return Started(
            self.step, self.schedule.steps, self.length, evals, self.parameters, world.device_name, world.size
        )

    def _batches(self) -> Iterator[Any]:
        training = self.plan.training
        order = sample_order(self.train_data, self.plan.seed, training.data, self.batch.global_)
        pin = self.world.device.type == "cuda"
        return training_batches(
            self.task, self.train_data, order, self.schedule, self.step, training.data, pin
        )

    def _check_best(self) -> None:
        """Try the metrics on one batch, so that a name which keep_best asks for in vain is told before the
        training.
        """
        best = self.plan.training.checkpoint.keep_best
        if best is None:
            return
        measured: list[str] = []
        if self.eval_data is not None:
            data = self.plan.training.data.model_copy(update={"loaders": 0})
            batch, _ = next(eval_batches(self.task, self.eval_data, 1, 0, 1, data, False))
            module = self.strategy.module
            module.eval()  # a statement: DeepSpeed's engine returns None from it
            with torch.no_grad(), self.strategy.autocast():
                names = call(
                    "metrics",
                    self.task.metrics,
                    module,
                    to_device(batch, self.world.device),
                    folder=self.folder,
                )
            module.train()
            measured = [f"eval/{name}" for name in names]
        if best.metric not in measured:
            close = nearest(best.metric, measured)
            remedy = (
                f"did you mean '{close}'?"
                if close
                else f"measured: {', '.join(measured) or 'nothing, the task has no eval data'}"
            )
            raise ConfigError(
                Problem(
                    "training.checkpoint.keep_best.metric",
                    rule="the task does not measure it",
                    got=best.metric,
                    remedy=remedy,
                )
            )

    def _total_samples(self) -> int:
        training = self.plan.training
        if training.epochs is not None:
            assert self.length is not None  # open_train_data has refused epochs without one
            return training.epochs * self.length
        assert training.steps is not None
        return training.steps * self.batch.global_

    def failure(self, error: Exception) -> TrainingError:
        """What happened, for the user: with the line of the user's own code where it came from there."""
        where, rule = f"step {self.step + 1}, rank {self.world.rank}", f"{type(error).__name__}: {error}"
        if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
            remedy = (
                "smaller training.batch.micro, gradient_checkpointing, or a strategy that splits more;"
                f" {self.last_good()}"
            )
            return ExhaustedError(Problem(where, rule=rule.splitlines()[0], remedy=remedy))
        if isinstance(error, torch.AcceleratorError) and "device-side assert" not in rule:
            return WorkerLostError(Problem(where, rule="its device failed", got=rule.splitlines()[0]))
        if _lost_peers(error):
            return WorkerLostError(Problem(where, rule="the connection to the other workers is gone"))
        remedy = f"see {blame(error, self.folder)}; {self.last_good()}"
        return TrainingError(Problem(where, rule=rule, remedy=remedy), trace(error, self.folder))

    def last_good(self) -> str:
        """Where the run can go on from, for an error message."""
        saved = (
            self.saved
            if self.world.rank == 0
            else next((found.step for found in reversed(self.store.manifests())), None)
        )
        return (
            "no checkpoint was written yet"
            if saved is None
            else f"last good checkpoint: {self.store.folder(saved)}"
        )

    def close(self) -> None:
        """End what runs beside the training; a checkpoint that was begun is finished, if that takes no longer
        than a moment.
        """
        self.checkpointer.close()
        self._tell_saved()


def _due(done: int, every: int | None) -> bool:
    return every is not None and done % every == 0


def _step_seed(seed: int, step: int, rank: int) -> int:
    """Random numbers of a step (dropout) are a function of (seed, step, rank), so a resumed run needs no
    saved state.
    """
    return hash((seed, step, rank)) & 0x7FFF_FFFF_FFFF_FFFF


def _paused(step: int, checkpoint: str) -> Problem:
    return Problem(
        f"step {step}",
        rule=f"the run stopped as it was told to, with the checkpoint {checkpoint}",
        remedy="go on with --resume",
    )


def _lost_peers(error: BaseException) -> bool:
    """Whether a collective failed because another worker is gone. gloo tells it in the text of a RuntimeError
    only.
    """
    signs = (
        "gloo",
        "NCCL",
        "Connection closed by peer",
        "Connection reset",
        "Broken pipe",
        "recvValue failed",
        "Connection refused",
    )
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)
    )
