"""Training state in, weights for serving out: one process, no cluster, whatever strategy and however many
workers wrote it.
"""

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from raystack.checkpoint.locate import locate
from raystack.checkpoint.manifest import Manifest
from raystack.checkpoint.model import WEIGHTS, ModelSpec, Parameter, read_spec, read_task
from raystack.checkpoint.sharded import read_whole
from raystack.checkpoint.store import MODEL, CheckpointStore
from raystack.checkpoint.weights import read_model, write_weights
from raystack.errors import Problem, TrainingError
from raystack.task import Exports


def export(store: CheckpointStore, manifest: Manifest) -> Manifest:
    """Add the full weights to the `model/` of a published checkpoint, unless they are there, and what its
    task exports.

    Returns its manifest. Raises TrainingError where the state does not have what the model's card names.
    """
    if f"{MODEL}/{WEIGHTS}" in manifest.files:
        return manifest
    manifest = store.add(manifest.step, MODEL, partial(_fill, store, manifest))
    with store.fetch(manifest.step, MODEL) as folder:
        if isinstance(read_task(folder), Exports):
            return store.add(manifest.step, MODEL, partial(_export, folder))
    return manifest


def export_newest(url: str, out: Path | None) -> tuple[int, str, Sequence[Problem]]:
    """Export the newest good checkpoint at `url`, into its own folder or into `out`.

    Returns its step, the model folder, and why newer ones were skipped. Raises TrainingError where none is
    good.
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
    """Write a model folder, with its weights, into the local `folder`, which is made if it is not there."""
    with store.fetch(manifest.step, MODEL) as model:
        shutil.copytree(model, folder, dirs_exist_ok=True)
    if f"{MODEL}/{WEIGHTS}" not in manifest.files:
        _fill(store, manifest, folder)
        if isinstance(read_task(folder), Exports):
            _export(folder, folder)


def _export(model: Path, folder: Path) -> None:
    task, module, _ = read_model(model)
    assert isinstance(task, Exports)
    task.export(module, folder)


def _fill(store: CheckpointStore, manifest: Manifest, folder: Path) -> None:
    with store.fetch(manifest.step, MODEL) as model:
        card = read_spec(model)
    with store.fetch(manifest.step, manifest.state) as state:
        flat = read_whole(state)
    write_weights(folder, weights(card, flat, store.folder(manifest.step)))


def weights(card: ModelSpec, flat: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The card's parameters from flattened ones. `where` names the checkpoint in a TrainingError."""
    return {
        name: _unflatten(name, parameter, flat.get(name), where)
        for name, parameter in card.parameters.items()
    }


def _unflatten(name: str, parameter: Parameter, flat: Tensor | None, where: str) -> Tensor:
    dtype = getattr(torch, parameter.dtype)
    assert isinstance(dtype, torch.dtype)
    count = torch.Size(parameter.shape).numel()
    if flat is None and count == 0:
        return torch.empty(parameter.shape, dtype=dtype)
    if flat is None or flat.numel() != count:
        got = "nothing" if flat is None else f"{flat.numel()} elements"
        raise TrainingError(
            Problem(where, rule=f"its state should have {count} elements of '{name}'", got=got)
        )
    return flat.to(dtype).view(parameter.shape)
