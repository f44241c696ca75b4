"""The checkpoint that an attempt resumes from, and the steps from there on.

It is the newest one whose files are all undamaged.
"""

import torch

from raystack.checkpoint import CheckpointStore, Manifest
from raystack.config.optimizer import SGD, Optimizer, Own, RMSprop
from raystack.config.training import Training
from raystack.errors import ConfigError, Problem
from raystack.events import Listener, Warned
from raystack.plan import TrainPlan
from raystack.training.data import BatchPlan
from raystack.training.world import World


def find(store: CheckpointStore, world: World, tell: Listener) -> Manifest | None:
    """Return the newest undamaged checkpoint, the same on every worker; warn of each damaged one."""
    # Only rank 0 lists them, because the other workers' listings might differ; all share the hashing.
    candidates = list(store.candidates()) if world.rank == 0 else []
    for candidate in world.gather_objects(candidates)[0]:
        if isinstance(candidate, Problem):
            problem: Problem | None = candidate
        else:
            found = world.gather_objects(store.damaged(candidate, world.rank, world.size))
            problem = next((one for one in found if one is not None), None)
            if problem is None:
                assert isinstance(candidate, Manifest)
                return candidate
        tell(Warned(f"{problem}; the checkpoint before it is used"))
    return None


def check(plan: TrainPlan, manifest: Manifest, samples: int | None) -> None:
    """Raise ConfigError if the plan changes the data or its order since the checkpoint."""
    # The position in the data is one number, which means the same only if these are the same.
    kept: list[tuple[str, int | bool | str | None, int | bool | str | None]] = [
        ("experiment.seed", plan.seed, manifest.seed),
        ("training.data.shuffle", plan.training.data.shuffle, manifest.shuffle),
        ("training.data.bucket", plan.training.data.bucket, manifest.bucket),
        ("training.data.weighted", plan.training.data.weighted, manifest.weighted),
    ]
    if manifest.bucket is not None:  # the samples are sorted within global batches
        kept.append(("training.batch.global", plan.batch.global_, manifest.global_batch))
    for key, now, then in kept:
        if now != then:
            rule = f"a resumed run keeps its {key}, which was {_word(then)}"
            raise ConfigError(Problem(key, rule=rule, got=_word(now), remedy=f"set {key}={_word(then)}"))
    if manifest.dataset_length != samples:
        rule = f"a resumed run keeps its training data, which had {_samples(manifest.dataset_length)}"
        raise ConfigError(Problem("task: train_data", rule=rule, got=_samples(samples)))


def check_optimizer(name: str, manifest: Manifest) -> None:
    """Raise ConfigError if the optimizer, as `optimizer_name` has it, is not that of the checkpoint."""
    if manifest.optimizer not in (None, name):
        rule = f"a resumed run keeps its training.optimizer, which was {manifest.optimizer}"
        raise ConfigError(Problem("training.optimizer", rule=rule, got=name))


def schedule(plan: TrainPlan, world: World, length: int | None, found: Manifest | None) -> BatchPlan:
    """Return the steps of a run on data of `length` samples, from its checkpoint on if there is one.

    Raises ConfigError if the run is longer already than the config says.
    """
    first, origin = (found.step, found.samples) if found is not None else (0, 0)
    batch = plan.batch_on(world.size)
    total = _total(plan.training, batch.global_, length, first, origin)
    if plan.training.data.drop_last:
        total -= (total - origin) % batch.global_
        if total == 0:
            rule = f"it leaves no step, because the run has less than one batch of {_samples(batch.global_)}"
            raise ConfigError(Problem("training.data.drop_last", rule=rule, got="true"))
    return BatchPlan(batch, total, world.rank, first, origin)


def optimizer_name(config: Optimizer, made: torch.optim.Optimizer) -> str:
    """Return the kind of an optimizer; two of the same kind have the same state."""
    if isinstance(config, Own):
        return f"the task's {type(made).__name__}"
    momentum = isinstance(config, SGD | RMSprop) and config.momentum > 0
    return f"{config.kind} with momentum" if momentum else config.kind


def _total(training: Training, batch: int, length: int | None, first: int, origin: int) -> int:
    """Return the number of samples in a run of which `first` steps consumed `origin`."""
    if training.epochs is not None:
        assert length is not None  # open_train_data has refused epochs without one
        total, key, done = training.epochs * length, "epochs", f"{origin / length:.4g} epochs"
        least = -(-origin // length)
    else:
        assert training.steps is not None
        total, key, done = origin + (training.steps - first) * batch, "steps", f"{first} steps"
        least = first
    if total < origin:
        rule, got = f"the run has done {done} already", str(getattr(training, key))
        remedy = f"set training.{key}={least} or more"
        raise ConfigError(Problem(f"training.{key}", rule=rule, got=got, remedy=remedy))
    return total


def _word(value: int | bool | str | None) -> str:
    """Return a value as the config writes it."""
    return "null" if value is None else str(value).lower()


def _samples(length: int | None) -> str:
    return "no length" if length is None else f"{length} samples"
