"""The weights that a run begins with, read by each worker into its model before a strategy splits it.

In: the config's `init_from`, and what its driver has settled. Out: the model's tensors, and their origin.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from raystack.checkpoint import MODEL, CheckpointStore, Manifest, ModelSpec, read_spec
from raystack.checkpoint.checksums import verify_model
from raystack.checkpoint.extra_state import Extra, load_extra_state
from raystack.checkpoint.locate import locate
from raystack.checkpoint.model import CARD, EXTRA_STATE, WEIGHTS
from raystack.checkpoint.scratch import scratch
from raystack.errors import ConfigError, LaunchError, Problem, RaystackError
from raystack.events import Initialised, Listener, Warned
from raystack.plan import TrainPlan
from raystack.runs import ending
from raystack.storage import Storage
from raystack.training.fitting import KEY, fit
from raystack.training.origin import Origin, read_origins
from raystack.training.world import World

Result = TypeVar("Result")
_STEP = re.compile(r"step-(\d+)")
FORMS = "models:/name@alias, models:/name/version, or a checkpoint, a run or a model"


@dataclass(frozen=True)
class _Found:
    """Where an origin has weights: a model's folder, or checkpoints of a run, the preferred one first."""

    origin: Origin
    model: str = ""
    store: CheckpointStore | None = None
    candidates: tuple[Manifest | Problem, ...] = ()


def initialise(plan: TrainPlan, model: nn.Module, world: World, tell: Listener) -> dict[str, Any] | None:
    """Load what the config's `init_from` names into `model`; return what it is from, for `model.json`.

    Collective. None if the config names nothing. Raises ConfigError, on all workers, if there is nothing, if
    it is damaged, or if it does not fit.
    """
    config = plan.training.init_from
    if config is None:
        return None
    with _as_ours():
        found = _on_first(world, lambda: _find(plan, config.source))
        manifest = _undamaged(found, world, tell) if found.store is not None else None
        with _opened(found, manifest) as folders:
            _on_first(world, lambda: verify_model(folders[0]) if manifest is None else None)
            spec, tensors, extra = _read(*folders)
            fitted = fit(model, tensors, config, found.origin.name)
    if config.whole:
        load_extra_state(model, extra.modules)
    name = found.origin.name
    tell(Initialised(f"weights of {name} (run {spec.run_id}, step {spec.step}): {fitted}", name))
    return {"source": name, "run_id": spec.run_id, "step": spec.step}


def _find(plan: TrainPlan, source: str) -> _Found:
    # A training without a driver has no record.
    origin = read_origins(plan.paths.folder).get(source) or Origin(source, source)
    place = origin.place.rstrip("/")
    storage = Storage(place)
    names = storage.names()
    if not _STEP.fullmatch(place.rpartition("/")[2]):
        for model in (place, f"{place}/{MODEL}"):
            if {CARD, WEIGHTS} <= {*Storage(model).names()}:
                return _Found(origin, model)
    try:
        store, steps = locate(place)
    except LaunchError:
        rule, remedy = "there are no weights in it", f"accepted: {FORMS}"
        raise ConfigError(Problem(KEY, rule=rule, got=place, remedy=remedy)) from None
    chosen = _chosen(place) if ending.FILE in names else None
    ordered = sorted(steps, key=lambda step: (step == chosen, step), reverse=True)
    return _Found(origin, store=store, candidates=tuple(store.read(step) for step in ordered))


def _chosen(run: str) -> int | None:
    """Return the step of the checkpoint whose weights are the result of a run, if it has ended with one."""
    ended = ending.read(run)
    if ended is None or ended.status != "succeeded":
        return None
    match = _STEP.fullmatch((ended.outcome.checkpoint or "").rpartition("/")[2])
    return int(match[1]) if match else None


def _undamaged(found: _Found, world: World, tell: Listener) -> Manifest:
    """Return the first candidate whose files are as its manifest says; all workers share the hashing."""
    assert found.store is not None
    problems = []
    for candidate in found.candidates:
        if isinstance(candidate, Problem):
            problems.append(candidate)
            continue
        bad = _damaged(found.store, candidate, world)
        if bad is None:
            for problem in problems:
                tell(Warned(f"{KEY}: {problem}; {found.store.folder(candidate.step)} is used"))
            return candidate
        problems.append(bad)
    raise ConfigError(problems)


def _damaged(store: CheckpointStore, manifest: Manifest, world: World) -> Problem | None:
    state = f"{MODEL}/{WEIGHTS}" not in manifest.files
    needed = [name for name in sorted(manifest.files) if state or name.startswith(f"{MODEL}/")]
    bad: Problem | None = None
    try:
        mine = needed[world.rank :: world.size]
        bad = next((problem for name in mine if (problem := store.check(manifest, name)) is not None), None)
    except RaystackError as error:
        bad = error.problems[0]
    return next((problem for problem in world.gather_objects(bad) if problem is not None), None)


@contextmanager
def _opened(found: _Found, manifest: Manifest | None) -> Iterator[tuple[Path, Path | None]]:
    """Provide local folders: that of the model, and that of the state if the model has no weights."""
    if manifest is None:
        storage = Storage(found.model)
        if storage.local:
            yield Path(storage.path()), None
            return
        with scratch() as folder:
            storage.get("", folder)
            yield folder, None
        return
    assert found.store is not None
    with found.store.fetch(manifest.step, MODEL) as model:
        if f"{MODEL}/{WEIGHTS}" in manifest.files:
            yield model, None
            return
        with found.store.fetch(manifest.step, manifest.state) as state:
            yield model, state


def _read(model: Path, state: Path | None) -> tuple[ModelSpec, dict[str, Tensor], Extra]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    spec = read_spec(model)
    if state is not None:
        from raystack.checkpoint.export import read_weights  # takes a second

        return spec, *read_weights(spec, state, str(model.parent))
    try:
        tensors = load_file(str(model / WEIGHTS))
    except (OSError, SafetensorError) as error:
        raise ConfigError(Problem(KEY, rule=f"{model / WEIGHTS} cannot be read: {error}")) from None
    stored = model / EXTRA_STATE
    return spec, tensors, Extra.from_bytes(stored.read_bytes()) if stored.is_file() else Extra()


@contextmanager
def _as_ours() -> Iterator[None]:
    """Raise errors of a storage, a checkpoint or a model as those of the config's key."""
    try:
        yield
    except RaystackError as error:
        problems = [
            problem
            if problem.where.startswith(KEY)
            else replace(problem, where=KEY, rule=f"{problem.where}: {problem.rule}")
            for problem in error.problems
        ]
        raise ConfigError(problems) from None


def _on_first(world: World, action: Callable[[], Result]) -> Result:
    """Return what `action` returns on rank 0; raise on all workers what it raises there."""
    result: Any = None
    if world.rank == 0:
        try:
            result = action()
        except RaystackError as error:
            result = error
    result = world.gather_objects(result)[0]
    if isinstance(result, RaystackError):
        raise result
    return result  # type: ignore[no-any-return]
