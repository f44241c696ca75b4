"""The training loop, as each worker runs it. It reads top to bottom and does not know which strategy it runs."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute
from torch.utils.flop_counter import FlopCounterMode

from raystack import config as configs
from raystack.checkpoint import CONFIG, MODEL, STATE, Manifest, ModelCard, Store, ranked, write_model
from raystack.errors import ConfigError, Problem, TrainingError, nearest
from raystack.events import Evaluated, Finished, Listener, Saved, Started, Stepped
from raystack.plan import TrainPlan
from raystack.plan.scale import peak_flops
from raystack.task import CountsTokens, Demonstrates, HasBlocks, MapDataset, Task, blame, call, load, unpack
from raystack.training import strategy as strategies
from raystack.training.data import SampleOrder, Schedule, eval_batches, to_device, training_batches
from raystack.training.evaluate import evaluate
from raystack.training.meter import Meter
from raystack.training.optimizer import learning_rate, make_optimizer
from raystack.training.world import World


@dataclass(frozen=True)
class Job:
    """What the driver sends to each worker."""

    plan: TrainPlan
    code: bytes | None
    """The task's folder as an archive; None for an installed package."""
    resume: Manifest | None
    """The checkpoint to go on from, already checked; None: from the start."""


def train(job: Job, world: World, tell: Listener) -> Finished:
    """Run the training on this worker; `tell` is called on rank 0 only. Returns what the run ended with."""
    run = _Run(job, world, tell if world.rank == 0 else lambda event: None)
    try:
        return run.train()
    except (ConfigError, TrainingError):
        raise
    except Exception as error:
        where = f"step {run.step + 1}, rank {world.rank}"
        raise TrainingError(
            Problem(where, rule=f"{type(error).__name__}: {error}", remedy=f"see {blame(error, run.folder)}; {run.last_good()}")
        ) from error


class _Run:
    """The state of one worker's training: what was built from the plan, and the position in the data."""

    def __init__(self, job: Job, world: World, tell: Listener) -> None:
        plan = self.plan = job.plan
        self.world, self.tell, self.code = world, tell, job.code
        self.folder = unpack(job.code) if job.code is not None else None
        self.store = Store(plan.paths.checkpoints)
        self.first = self.step = job.resume.step if job.resume else 0
        self.saved = job.resume.step if job.resume else None
        """Step of the last checkpoint."""
        self.losses: list[Tensor] = []
        """Of the steps since the last report, on the device: reading one would wait for it."""

        torch.set_num_threads(plan.workers.threads)
        torch.manual_seed(plan.seed)
        self.task = load(plan.config.task.model_copy(update={"folder": self.folder}))
        self.tokens_of: Callable[[Any], int] = self.task.tokens if isinstance(self.task, CountsTokens) else lambda batch: 0
        self.train_data: MapDataset = self._samples("train_data", self.task.train_data)
        self.eval_data: MapDataset | None = self._samples("eval_data", self.task.eval_data)
        self.schedule = Schedule(plan.batch, self._total_samples(), world.rank)
        model = call("model", self.task.model, folder=self.folder).to(world.device)
        if plan.training.gradient_checkpointing:
            _recompute_blocks(self.task, model)
        self.strategy = strategies.build(plan.training.strategy, model, partial(make_optimizer, plan.training.optimizer), world.size)
        self._check_best()
        if job.resume:
            self._check_resumed(job.resume)
            with self.store.fetch(job.resume.step, STATE) as folder:
                self.strategy.load(folder)

    def train(self) -> Finished:
        plan, schedule, cadence = self.plan, self.schedule, self.plan.cadence
        self.tell(self._started())
        batches = self._batches()
        meter: Meter | None = None

        for step in range(self.step, schedule.steps):
            done = step + 1
            report = done % cadence.log == 0 or done == schedule.steps or step == self.first
            self.world.seed(_step_seed(plan.seed, step, self.world.rank))
            if meter is None:
                loss, meter = self._first_step(step, batches)
            else:
                loss = self._forward_backward(step, batches, meter, precise=report)
            with meter.part("optimizer"):
                lr = learning_rate(plan.training.optimizer.lr, plan.training.schedule, step, schedule.steps)
                norm = self.strategy.step(lr, plan.training.clip_norm, want_norm=report)
            self.losses.append(loss)
            if step > self.first:
                meter.end(schedule.consumed(done) - schedule.consumed(step), self.tokens)
            self.step = done

            evaluates = done == schedule.steps or _due(done, cadence.evaluate)
            saves = done == schedule.steps or _due(done, cadence.checkpoint)
            if report or saves:
                self._report(done, lr, norm, meter)
            metrics = self._evaluate(done) if evaluates else {}
            if saves:
                self._save(done, metrics)
            if evaluates or saves or step == self.first:
                meter.restart()
        return self._finished()

    def _forward_backward(self, step: int, batches: Iterator[Any], meter: Meter, *, precise: bool) -> Tensor:
        """Gradients of a whole step on this worker. Returns its part of the step's mean loss, on the device."""
        meter.begin(precise=precise)
        shares = self.schedule.shares(step)
        losses: list[Tensor] = []
        self.tokens = 0
        for share in shares:
            with meter.part("data"):
                batch = to_device(next(batches), self.world.device)
                self.tokens += self.tokens_of(batch) if share.weight else 0
            with self.strategy.micro_step(last=share is shares[-1]):
                with meter.part("forward"), self._autocast():
                    loss = self.task.loss(self.strategy.module, batch)
                    loss = loss if share.weight == 1.0 else loss * share.weight
                with meter.part("backward"):
                    self.strategy.backward(loss)
            losses.append(loss.detach())
        return sum(losses[1:], losses[0])

    def _first_step(self, step: int, batches: Iterator[Any]) -> tuple[Tensor, Meter]:
        """The first step counts the floating point operations of all; it is slower for that and times nothing."""
        meter = Meter(self.world, peak_flops(self.world.device_name, self.plan.training.precision))
        with FlopCounterMode(display=False) as counter:
            loss = self._forward_backward(step, batches, meter, precise=False)
        meter.flops_per_step = float(counter.get_total_flops())
        return loss, meter

    def _report(self, done: int, lr: float, norm: Tensor | None, meter: Meter) -> None:
        """Bring the workers' losses together; all of them stop here if one is not finite."""
        losses = torch.stack(self.losses).tolist()
        self.losses.clear()
        first_bad = next((index for index, loss in enumerate(losses) if not math.isfinite(loss)), math.inf)
        everyone = self.world.gather([losses[-1], done - len(losses) + 1 + first_bad])
        bad = min(row[1] for row in everyone)
        if math.isfinite(bad):
            raise TrainingError(
                Problem(
                    f"step {int(bad)}",
                    rule="the loss is not a finite number",
                    remedy=f"lower the learning rate or clip; {self.last_good()}",
                )
            )
        metrics = {
            "train/loss": math.fsum(row[0] for row in everyone) / self.world.size,
            "train/lr": lr,
            "train/epoch": self.schedule.consumed(done) / len(self.train_data),
            **({"train/grad_norm": float(norm)} if norm is not None else {}),
            **meter.report(),
        }
        if (communication := self.strategy.communication_s()) is not None:
            metrics["speed/communication_s"] = communication
        self.tell(Stepped(done, metrics))

    def _evaluate(self, done: int) -> dict[str, float]:
        if self.eval_data is None:
            return {}
        plan, world = self.plan, self.world
        pin = world.device.type == "cuda"
        batches = eval_batches(self.task, self.eval_data, plan.eval_batch, world.rank, world.size, plan.training.data, pin)
        with self._autocast():
            metrics = evaluate(self.task, self.strategy.module, batches, world)
        self.tell(Evaluated(done, metrics))
        return metrics

    def _save(self, done: int, metrics: dict[str, float]) -> None:
        started = time.perf_counter()
        plan = self.plan
        manifest = Manifest(
            run_id=plan.run_id,
            step=done,
            samples=self.schedule.consumed(done),
            dataset_length=len(self.train_data),
            seed=plan.seed,
            global_batch=plan.batch.global_,
            world_size=self.world.size,
            strategy=plan.training.strategy.kind,
            metrics=metrics,
        )
        if self.world.rank == 0:
            self.store.save(manifest, partial(self._fill, manifest))
            self.store.prune(plan.training.checkpoint.keep_last, plan.training.checkpoint.keep_best)
            self.tell(Saved(done, self.store.folder(done), time.perf_counter() - started))
        self.world.barrier()
        self.saved = done

    def _fill(self, manifest: Manifest, folder: Path) -> None:
        config = self.plan.config
        (folder / CONFIG).write_text(configs.dump(config), encoding="utf-8")
        (folder / STATE).mkdir()
        self.strategy.save(folder / STATE)
        (folder / MODEL).mkdir()
        card = ModelCard(config.task.entry, config.task.args, self.task.signature, self.plan.run_id, manifest.step, manifest.metrics)
        write_model(folder / MODEL, self.strategy.bare, card, self.code)

    def _finished(self) -> Finished:
        best = self.plan.training.checkpoint.keep_best
        manifests = self.store.manifests() if self.world.rank == 0 else []
        chosen = next(iter(ranked(manifests, best) if best else ()), None) or (manifests[-1] if manifests else None)
        text = None
        if isinstance(self.task, Demonstrates) and self.world.rank == 0:
            self.strategy.bare.eval()
            with torch.inference_mode():
                text = self.task.demonstrate(self.strategy.bare)
        return Finished(self.step, chosen.step if chosen else self.step, chosen.metrics if chosen else {}, text)

    def _started(self) -> Started:
        parameters = sum(parameter.numel() for parameter in self.strategy.bare.parameters() if parameter.requires_grad)
        evals = len(self.eval_data) if self.eval_data is not None else 0
        return Started(self.step, self.schedule.steps, len(self.train_data), evals, parameters, self.world.device_name, self.world.size)

    def _batches(self) -> Iterator[Any]:
        training = self.plan.training
        order = SampleOrder(len(self.train_data), self.plan.seed, training.data.shuffle)
        pin = self.world.device.type == "cuda"
        return training_batches(self.task, self.train_data, order, self.schedule, self.step, training.data, pin)

    def _autocast(self) -> Any:
        if self.plan.training.precision == "bf16":
            return torch.autocast(self.world.device.type, torch.bfloat16)
        return nullcontext()

    def _check_resumed(self, resume: Manifest) -> None:
        """A position in the data means the same only for the same data."""
        if resume.dataset_length != len(self.train_data):
            rule = f"a resumed run keeps its training data, which had {resume.dataset_length} samples"
            raise ConfigError(Problem("task: train_data", rule=rule, got=f"{len(self.train_data)} samples"))

    def _check_best(self) -> None:
        """Try the metrics on one batch, so that a name which keep_best asks for in vain is told before the training."""
        best = self.plan.training.checkpoint.keep_best
        if best is None:
            return
        measured: list[str] = []
        if self.eval_data is not None:
            batch, _ = next(
                eval_batches(self.task, self.eval_data, 1, 0, 1, self.plan.training.data.model_copy(update={"loaders": 0}), False)
            )
            with torch.no_grad(), self._autocast():
                names = call(
                    "metrics", self.task.metrics, self.strategy.bare.eval(), to_device(batch, self.world.device), folder=self.folder
                )
            self.strategy.bare.train()
            measured = [f"eval/{name}" for name in names]
        if best.metric not in measured:
            close = nearest(best.metric, measured)
            remedy = f"did you mean '{close}'?" if close else f"measured: {', '.join(measured) or 'nothing, the task has no eval data'}"
            raise ConfigError(
                Problem("training.checkpoint.keep_best.metric", rule="the task does not measure it", got=best.metric, remedy=remedy)
            )

    def _samples(self, name: str, make: Any) -> Any:
        dataset = call(name, make, folder=self.folder)
        if dataset is not None and len(dataset) == 0:
            raise ConfigError(
                Problem(f"task: {name}", rule="a dataset has at least one sample", got="length 0", remedy="check where the task reads from")
            )
        return dataset

    def _total_samples(self) -> int:
        training = self.plan.training
        if training.epochs is not None:
            return training.epochs * len(self.train_data)
        assert training.steps is not None
        return training.steps * self.plan.batch.global_

    def last_good(self) -> str:
        """Where the run can go on from, for an error message."""
        if self.saved is None:
            return "no checkpoint was written yet"
        return f"last good checkpoint: {self.store.folder(self.saved)}"


def _due(done: int, every: int | None) -> bool:
    return every is not None and done % every == 0


def _step_seed(seed: int, step: int, rank: int) -> int:
    """Random numbers of a step (dropout) are a function of (seed, step, rank), so a resumed run needs no saved state."""
    return hash((seed, step, rank)) & 0x7FFF_FFFF_FFFF_FFFF


def _recompute_blocks(task: Task, model: nn.Module) -> None:
    """Let each of the task's blocks forget its activations and compute them again in the backward pass."""
    if not isinstance(task, HasBlocks):
        raise ConfigError(
            Problem(
                "training.gradient_checkpointing",
                rule="the task has to say which blocks to recompute",
                remedy="give it a method blocks(model)",
            )
        )
    for block in task.blocks(model):
        block.forward = partial(recompute, block.forward, use_reentrant=False)
