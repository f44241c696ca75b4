"""The folder that vLLM reads is found, in a checkpoint too, and what is missing in it is said."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from raystack.config.tracking import Tracking
from raystack.errors import ConfigError
from raystack.serving.llm.folder import adapter_folder, has_chat_template, model_folder, rank

OFF = Tracking(kind="off")
WHOLE = ("config.json", "tokenizer.json", "model.safetensors")


def written(folder: Path, names: Sequence[str], **values: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(json.dumps({"model_type": "llama", "r": 16, **values}))
    return folder


@pytest.mark.parametrize("inside", ["", "hf", "model/hf"])
def test_hugging_faces_files_are_found_in_a_checkpoint_too(tmp_path: Path, inside: str) -> None:
    folder = written(tmp_path / inside, WHOLE)
    assert model_folder(str(tmp_path), OFF) == folder
    assert model_folder(f"file://{tmp_path}", OFF) == folder


def test_a_folder_of_an_object_store_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    written(tmp_path / "store", WHOLE)
    (tmp_path / "tmp").mkdir()
    found = model_folder(f"local://{tmp_path}/store", OFF)
    assert found != tmp_path / "store"
    assert sorted(file.name for file in found.iterdir()) == sorted(WHOLE)
    assert model_folder(f"local://{tmp_path}/store", OFF) == found


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "serving.model: is no language model: {} has no config.json (got {}); name what a training of"),
        (("model.json",), "has no config.json"),
        (("config.json", "model.safetensors"), "has no tokenizer: {} has none of tokenizer.json"),
        (("config.json", "tokenizer.json"), "has no weights: {} has none of *.safetensors"),
        (
            ("adapter_config.json",),
            "is a LoRA adapter and no whole model (got {}); serve /base, and",
        ),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, names: Sequence[str], message: str) -> None:
    folder = written(tmp_path, names, base_model_name_or_path="/base")
    with pytest.raises(ConfigError) as raised:
        model_folder(str(folder), OFF)
    assert message.replace("{}", str(folder)) in str(raised.value)


def test_a_config_that_is_none_is_refused(tmp_path: Path) -> None:
    written(tmp_path, WHOLE)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"cannot be read: .*config\.json"):
        model_folder(str(tmp_path), OFF)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"its config\.json has no model_type"):
        model_folder(str(tmp_path), OFF)
    with pytest.raises(ConfigError, match="there is no such folder"):
        model_folder(str(tmp_path / "none"), OFF)


def test_an_adapter_is_found_and_a_whole_model_is_none(tmp_path: Path) -> None:
    folder = written(tmp_path / "a" / "hf", ["adapter_config.json"])
    assert adapter_folder("a", str(tmp_path / "a"), OFF) == folder
    assert rank(folder) == 16
    whole = written(tmp_path / "whole", WHOLE)
    with pytest.raises(ConfigError, match=r"serving\.llm\.adapters\.a: is a whole model .*merge=false"):
        adapter_folder("a", str(whole), OFF)
    with pytest.raises(ConfigError, match=r"is no LoRA adapter: .* has no adapter_config\.json"):
        adapter_folder("a", str(tmp_path), OFF)


def test_a_chat_template_is_found_where_transformers_leaves_it(tmp_path: Path) -> None:
    folder = written(tmp_path, ["tokenizer_config.json"])
    assert not has_chat_template(folder)
    written(tmp_path, ["tokenizer_config.json"], chat_template="{{ messages }}")
    assert has_chat_template(folder)
    written(tmp_path, ["tokenizer_config.json", "chat_template.jinja"])
    assert has_chat_template(folder)
