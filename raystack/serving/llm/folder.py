"""A model's URI -> the local folder that vLLM reads: Hugging Face's files of a model, or of an adapter."""

import json
from pathlib import Path
from typing import Any

from raystack import registry
from raystack.checkpoint.model import HF
from raystack.checkpoint.store import MODEL
from raystack.config.tracking import Tracking
from raystack.errors import ConfigError, Problem
from raystack.storage import Storage

CONFIG, ADAPTER = "config.json", "adapter_config.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json")
WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.gguf")
KEY = "serving.model"
EXPORT = "name what a training of raystack.tasks.causal_lm:CausalLM has left, or a folder of Hugging Face's"


def model_folder(uri: str, tracking: Tracking) -> Path:
    """Return the folder of a model that can be generated with.

    Raises ConfigError where there is none, or where a file is missing in it.
    """
    folder = _folder(uri, tracking, KEY, CONFIG)
    if not (folder / CONFIG).is_file():
        if (folder / ADAPTER).is_file():
            base = (
                _read(folder / ADAPTER, KEY).get("base_model_name_or_path") or "the model it was trained on"
            )
            remedy = f"serve {base}, and name this one in serving.llm.adapters"
            raise _wrong(KEY, "is a LoRA adapter and no whole model", uri, remedy)
        raise _wrong(KEY, f"is no language model: {folder} has no {CONFIG}", uri, EXPORT)
    if not any((folder / name).is_file() for name in TOKENIZERS):
        rule = f"has no tokenizer: {folder} has none of {', '.join(TOKENIZERS)}"
        raise _wrong(KEY, rule, uri, "add it with its save_pretrained")
    if not any(next(folder.glob(pattern), None) for pattern in WEIGHTS):
        raise _wrong(KEY, f"has no weights: {folder} has none of {', '.join(WEIGHTS)}", uri, None)
    if "model_type" not in _read(folder / CONFIG, KEY):
        raise _wrong(KEY, f"is no language model: its {CONFIG} has no model_type", uri, EXPORT)
    return folder


def adapter_folder(name: str, uri: str, tracking: Tracking) -> Path:
    """Return the folder of a LoRA adapter; raise ConfigError where there is none."""
    key = f"serving.llm.adapters.{name}"
    folder = _folder(uri, tracking, key, ADAPTER)
    if not (folder / ADAPTER).is_file():
        merged = (folder / CONFIG).is_file()
        rule = "is a whole model" if merged else f"is no LoRA adapter: {folder} has no {ADAPTER}"
        remedy = "train it with task.args.merge=false, or serve it for itself" if merged else None
        raise _wrong(key, rule, uri, remedy)
    return folder


def rank(adapter: Path) -> int:
    """Return the rank of an adapter."""
    return int(_read(adapter / ADAPTER, "serving.llm.adapters").get("r", 8))


def has_chat_template(folder: Path) -> bool:
    """Return whether the tokenizer in the folder makes a prompt of messages."""
    if any((folder / name).exists() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    config = folder / "tokenizer_config.json"
    return config.is_file() and bool(_read(config, KEY).get("chat_template"))


def _folder(uri: str, tracking: Tracking, key: str, file: str) -> Path:
    """Return the folder at a URI, or in a checkpoint there the one with Hugging Face's files."""
    if uri.startswith("models:"):
        found = registry.resolve(uri, tracking)
    elif "://" in uri and not uri.startswith("file://"):
        found = _fetched(uri, tracking, file)
    else:
        found = Path(uri.removeprefix("file://")).expanduser().absolute()
        if not found.is_dir():
            raise _wrong(key, "there is no such folder", uri, "train first, or name another folder")
    exported = (found / HF, found / MODEL / HF)
    return next((folder for folder in exported if folder.is_dir()), found)


def _fetched(url: str, tracking: Tracking, file: str) -> Path:
    storage = Storage(url.rstrip("/"))
    if file not in storage.names():
        return registry.resolve(url, tracking)
    return registry.cached(f"{url} {storage.mark(file)}", lambda folder: storage.get("", Path(folder)))


def _read(file: Path, key: str) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _wrong(key, f"cannot be read: {error}", str(file), None) from None
    if not isinstance(values, dict):
        raise _wrong(key, "should be a mapping", str(file), None)
    return values


def _wrong(key: str, rule: str, got: str, remedy: str | None) -> ConfigError:
    return ConfigError(Problem(key, rule=rule, got=got, remedy=remedy))
