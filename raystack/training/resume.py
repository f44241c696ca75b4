"""The checkpoint that an attempt resumes from: the newest whose files are all undamaged."""

from raystack.checkpoint import CheckpointStore, Manifest
from raystack.errors import ConfigError, Problem
from raystack.events import Listener, Warned
from raystack.plan import TrainPlan
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
    """Raise ConfigError if the plan changes the data, its order or its batches since the checkpoint."""
    # The position in the data is one number, which means the same only if these are the same.
    for key, now, then in (
        ("experiment.seed", plan.seed, manifest.seed),
        ("training.batch.global", plan.batch.global_, manifest.global_batch),
        ("training.data.shuffle", plan.training.data.shuffle, manifest.shuffle),
        ("training.data.bucket", plan.training.data.bucket, manifest.bucket),
    ):
        if now != then:
            raise ConfigError(
                Problem(
                    key,
                    rule=f"a resumed run keeps its {key}, which was {_word(then)}",
                    got=_word(now),
                    remedy=f"set {key}={_word(then)}",
                )
            )
    if manifest.dataset_length != samples:
        rule = f"a resumed run keeps its training data, which had {_samples(manifest.dataset_length)}"
        raise ConfigError(Problem("task: train_data", rule=rule, got=_samples(samples)))


def _word(value: int | bool | None) -> str:
    """Return a value as the config writes it."""
    return "null" if value is None else str(value).lower()


def _samples(length: int | None) -> str:
    return "no length" if length is None else f"{length} samples"
