"""Weights for serving, made from the training state of any number of workers in one process."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from raystack import registry
from raystack.checkpoint import MODEL, CheckpointStore, Manifest, ModelSpec, read_spec, write_spec
from raystack.checkpoint.checksums import verify_model
from raystack.checkpoint.export import export, export_to
from raystack.checkpoint.sharded import write
from raystack.checkpoint.state import Shard
from raystack.checkpoint.weights import read_model
from raystack.config.tracking import Tracking
from raystack.errors import ServingError, TrainingError
from raystack.task import Signature, TensorSpec

SIGNATURE = Signature((TensorSpec("x", "int64", (-1,)),), (TensorSpec("y", "float32", (-1, 5)),))


@pytest.fixture
def trained(
    url: str, save_trained: Callable[..., Manifest], tied: nn.Module
) -> tuple[CheckpointStore, Manifest, nn.Module]:
    """A published checkpoint without weights, as a training leaves it, and the module it came from."""
    return CheckpointStore(url), save_trained(url, 10), tied


def test_an_exported_checkpoint_serves_what_was_trained(
    trained: tuple[CheckpointStore, Manifest, nn.Module],
) -> None:
    store, record, module = trained
    exported = export(store, record)
    assert set(exported.files) - set(record.files) == {"model/model.safetensors", "model/checksums.json"}
    assert store.latest_good().manifest == exported
    with store.fetch(10, MODEL) as folder:
        _, served, card = read_model(folder)
    assert {name: tensor.dtype for name, tensor in served.state_dict().items()} == {
        name: tensor.dtype for name, tensor in module.state_dict().items()
    }
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(served.state_dict()[name], tensor, rtol=0, atol=0)
    assert card.parameters["embedding.weight"].shape == (5, 3)
    assert export(store, exported) == exported


def test_tied_weights_are_stored_once(
    trained: tuple[CheckpointStore, Manifest, nn.Module], tmp_path: Path
) -> None:
    from safetensors import safe_open

    store, record, _ = trained
    export_to(store, record, tmp_path / "out" / "model")
    with safe_open(tmp_path / "out" / "model" / "model.safetensors", "pt") as file:
        assert set(file.keys()) == {
            "embedding.weight",
            "small",
            "nothing",
            "norm.weight",
            "norm.bias",
            "norm.running_mean",
            "norm.running_var",
            "norm.num_batches_tracked",
        }
    _, served, _ = read_model(tmp_path / "out" / "model")
    assert served.get_parameter("head.weight") is served.get_parameter("embedding.weight")
    assert store.manifests() == [record]


def test_an_exported_folder_verifies_itself(
    trained: tuple[CheckpointStore, Manifest, nn.Module], tmp_path: Path
) -> None:
    store, record, _ = trained
    (tmp_path / "note.txt").write_text("what lay there before is not the model's")
    for _ in range(2):
        export_to(store, record, tmp_path)
        listed = json.loads((tmp_path / "checksums.json").read_text())
        assert sorted(listed) == ["code.zip", "model.json", "model.safetensors"]
    verify_model(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[::-1])
    with pytest.raises(ServingError, match=r"model\.safetensors: the SHA-256"):
        verify_model(tmp_path)


def test_a_checkpoint_without_weights_says_how_to_get_them(
    trained: tuple[CheckpointStore, Manifest, nn.Module],
) -> None:
    store, _, _ = trained
    with (
        store.fetch(10, MODEL) as folder,
        pytest.raises(ServingError, match=r"it has no model.safetensors; raystack checkpoint export"),
    ):
        read_model(folder)


def test_a_remote_checkpoint_is_served_once_it_was_exported(
    bucket: str, save_trained: Callable[..., Manifest]
) -> None:
    store = CheckpointStore(f"{bucket}/run")
    record = save_trained(store.url, 10)
    with pytest.raises(
        ServingError, match=rf"has no model.safetensors .*; raystack checkpoint export {store.folder(10)}$"
    ):
        registry.resolve(store.folder(10), Tracking(kind="off"))
    export(store, record)
    _, _, card = read_model(registry.resolve(store.folder(10), Tracking(kind="off")))
    assert card.step == 10


def test_a_state_of_another_model_is_not_exported(tmp_path: Path, save: Callable[..., Manifest]) -> None:
    state = tmp_path / "state"
    write(state, {"model/a": Shard.whole(torch.zeros(6))}, None)
    from raystack.checkpoint.export import weights
    from raystack.checkpoint.model import Parameter
    from raystack.checkpoint.sharded import read_whole

    flat = read_whole(state)
    card = ModelSpec("m:T", {}, SIGNATURE, "run", 10, {}, {"a": Parameter((2, 3), "float32")})
    assert weights(card, flat, "here")["a"].shape == (2, 3)
    for parameters, got in (
        ({"a": Parameter((2, 2), "float32")}, "6 elements"),
        ({"b": Parameter((2, 3), "float32")}, "nothing"),
    ):
        with pytest.raises(TrainingError, match=got):
            weights(replace(card, parameters=parameters), flat, "here")


def test_a_card_of_before_parameters_were_listed_is_read(tmp_path: Path) -> None:
    write_spec(tmp_path, ModelSpec("m:T", {}, SIGNATURE, "run", 10, {}), None)
    values = json.loads((tmp_path / "model.json").read_text())
    del values["parameters"]
    (tmp_path / "model.json").write_text(json.dumps(values))
    assert read_spec(tmp_path).parameters == {}
