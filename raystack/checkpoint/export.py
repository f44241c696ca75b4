"""Export weights for serving from a training state.

One process does it, without a cluster, whichever strategy and number of workers wrote the state.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from raystack.checkpoint.checksums import CHECKSUMS, UNLISTED, model_entries, write_checksums
from raystack.checkpoint.extra_state import Extra, read_extra
from raystack.checkpoint.locate import locate
from raystack.checkpoint.manifest import Manifest, describe_file
from raystack.checkpoint.model import EXTRA_STATE, WEIGHTS, ModelSpec, Parameter, read_spec, read_task
from raystack.checkpoint.sharded import read_whole
from raystack.checkpoint.state import AVERAGES
from raystack.checkpoint.statistics import STATISTICS
from raystack.checkpoint.store import MODEL, CheckpointStore
from raystack.checkpoint.weights import load_weights, read_model, write_extra, write_weights
from raystack.code.loading import make_model
from raystack.errors import Problem, ServingError, TrainingError
from raystack.task import Exports


def export(
    store: CheckpointStore, manifest: Manifest, describe: Callable[[Path, Path], None] | None = None
) -> Manifest:
    """Add the full weights, what its task exports, and checksums to the `model/` of a published checkpoint.

    `describe` may write more into its second folder, given the first one with the weights; it must not raise.
    Does nothing if they are there already. Returns the new manifest. Raises TrainingError if the state lacks
    a parameter that the model has.
    """
    if f"{MODEL}/{WEIGHTS}" not in manifest.files:
        manifest = store.add(manifest.step, MODEL, partial(_fill, store, manifest))
        with store.fetch(manifest.step, MODEL) as folder:
            if isinstance(read_task(folder), Exports):
                manifest = store.add(manifest.step, MODEL, partial(_export, folder))
    if f"{MODEL}/{CHECKSUMS}" not in manifest.files:
        if describe is not None and f"{MODEL}/{STATISTICS}" not in manifest.files:
            with store.fetch(manifest.step, MODEL) as folder:
                manifest = store.add(manifest.step, MODEL, partial(describe, folder))
        entries = model_entries(manifest)
        manifest = store.add(manifest.step, MODEL, partial(write_checksums, entries=entries))
    return manifest


def export_newest(url: str, out: Path | None) -> tuple[int, str, Sequence[Problem]]:
    """Export the newest undamaged checkpoint at `url`, into its own folder or into `out`.

    Returns its step, the model folder, and why newer checkpoints were skipped. Raises TrainingError if all
    are damaged.
    """
    store, steps = locate(url)
    found = store.latest_good(steps)
    if found.manifest is None:
        raise TrainingError(found.skipped)
    if out is None:
        export(store, found.manifest)
        return found.manifest.step, f"{store.folder(found.manifest.step)}/{MODEL}", found.skipped
    export_to(store, found.manifest, out)
    return found.manifest.step, str(out), found.skipped


def export_to(store: CheckpointStore, manifest: Manifest, folder: Path) -> None:
    """Write the model folder of a checkpoint, weights included, into the local `folder`."""
    others = _files(folder)
    with store.fetch(manifest.step, MODEL) as model:
        others -= _files(model) | {WEIGHTS, EXTRA_STATE}
        shutil.copytree(model, folder, dirs_exist_ok=True)
    if f"{MODEL}/{WEIGHTS}" not in manifest.files:
        _fill(store, manifest, folder)
        if isinstance(read_task(folder), Exports):
            _export(folder, folder)
    own = _files(folder) - others - {*UNLISTED}
    write_checksums(folder, {name: describe_file(folder / name) for name in own})


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _export(model: Path, folder: Path) -> None:
    task, module, _ = read_model(model)
    assert isinstance(task, Exports)
    task.export(module, folder)


def _fill(store: CheckpointStore, manifest: Manifest, folder: Path) -> None:
    with store.fetch(manifest.step, MODEL) as model:
        with store.fetch(manifest.step, manifest.state) as state:
            tensors, extra = read_weights(read_spec(model), state, store.folder(manifest.step))
        write_weights(folder, tensors)
        if extra.modules:
            write_extra(folder, extra)
        tensors.clear()
        _read_back(model, folder)


def _read_back(model: Path, folder: Path) -> None:
    """Load what was written as serving will: an export that cannot be read is none."""
    try:
        load_weights(make_model(read_task(model), restored=True), folder)
    except ServingError as error:
        raise TrainingError(error.problems) from None


def read_weights(spec: ModelSpec, state: Path, where: str) -> tuple[dict[str, Tensor], Extra]:
    """Read the weights that are exported, and the extra state, out of the training state at `state`.

    `spec` is that of the checkpoint, and `where` its name. Raises TrainingError as `weights` does.
    """
    extra = read_extra(state)
    flat = read_whole(state, AVERAGES) if spec.averaged else {}
    flat |= read_whole(state, without=flat.keys())
    spec = replace(spec, parameters={**spec.parameters, **extra.buffers})
    return weights(spec, flat, where), extra


def weights(spec: ModelSpec, flat: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Return the parameters of `spec`, each in its shape and dtype, from flattened tensors of the same names.

    Raises TrainingError, with `where` as the checkpoint's name, if one is missing or has another size.
    """
    return {
        name: _unflatten(name, parameter, flat.get(name), where)
        for name, parameter in spec.parameters.items()
    }


def _unflatten(name: str, parameter: Parameter, flat: Tensor | None, where: str) -> Tensor:
    dtype = getattr(torch, parameter.dtype)
    assert isinstance(dtype, torch.dtype)
    count = torch.Size(parameter.shape).numel()
    # `share` drops tensors without elements, so the state has none of them.
    if flat is None and count == 0:
        return torch.empty(parameter.shape, dtype=dtype)
    if flat is None or flat.numel() != count:
        got = "nothing" if flat is None else f"{flat.numel()} elements"
        raise TrainingError(
            Problem(where, rule=f"its state should have {count} elements of '{name}'", got=got)
        )
    return flat.to(dtype).view(parameter.shape)
