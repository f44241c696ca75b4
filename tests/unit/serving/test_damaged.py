"""A model of which a bit has flipped is refused with the file's name, wherever it lies."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from raystack.checkpoint.checksums import write_checksums
from raystack.checkpoint.manifest import Manifest, describe_files
from raystack.errors import ServingError
from raystack.serving.predictor import Predictor
from raystack.serving.pyfunc import _load_pyfunc

pytestmark = pytest.mark.usefixtures("threads")
Folder = Callable[..., Path]


def exported(folder: Path) -> Path:
    """As `raystack checkpoint export --out` and a registered version have it."""
    write_checksums(folder, describe_files(folder))
    return folder


def in_checkpoint(folder: Path) -> Path:
    """As a checkpoint of before checksums has it: the manifest beside it lists its files."""
    files = {f"model/{name}": entry for name, entry in describe_files(folder).items()}
    manifest = replace(Manifest("run", 12, 96, 100, 0, 8, 1, "ddp"), files=files)
    (folder.parent / "manifest.json").write_text(manifest.to_json())
    return folder


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-3] ^= 0x40
    file.write_bytes(content)


@pytest.mark.parametrize("lies", [exported, in_checkpoint])
@pytest.mark.parametrize("name", ["model.safetensors", "code.zip", "model.json"])
def test_a_flipped_bit_is_refused(model_folder: Folder, lies: Callable[[Path], Path], name: str) -> None:
    folder = lies(model_folder())
    Predictor.load(folder)
    flip(folder / name)
    for load in (Predictor.load, lambda path: _load_pyfunc(str(path), {})):
        with pytest.raises(ServingError, match="it is damaged") as raised:
            load(folder)
        assert raised.value.problems[0].where == str(folder / name)


@pytest.mark.parametrize("lies", [exported, in_checkpoint])
def test_a_file_that_is_cut_off_or_gone_is_refused(
    model_folder: Folder, lies: Callable[[Path], Path]
) -> None:
    folder = lies(model_folder())
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(ServingError, match=r"model\.safetensors: this file should have \d+ bytes"):
        Predictor.load(folder)
    weights.unlink()
    with pytest.raises(ServingError, match=r"model\.safetensors: this file of the model is missing"):
        Predictor.load(folder)


def test_checksums_that_are_damaged_themselves_are_refused(model_folder: Folder) -> None:
    folder = exported(model_folder())
    (folder / "checksums.json").write_text('{"model.safetensors": ')
    with pytest.raises(ServingError, match=r"checksums\.json: this file cannot be read"):
        Predictor.load(folder)
