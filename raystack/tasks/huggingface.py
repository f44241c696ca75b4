"""The door to transformers and peft. In: a local folder. Out: a causal language model, its tokenizer; and
back into a folder.

Nothing is downloaded: every call reads local files only. Both libraries are the extra `llm` and are imported
when a function here is first called.
"""

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from raystack.errors import ConfigError, Problem

MODEL = "task.args.model"
GENERATION = "generation_config.json"
PROBE = ((5, 3, 7, 2), (1, 6, 2, 4, 8))
"""Two short samples of token numbers that all vocabularies have."""


def check_folder(folder: Path) -> None:
    """Raise ConfigError unless `folder` holds a transformers model. Imports neither library."""
    if not folder.is_dir():
        raise ConfigError(
            Problem(
                MODEL,
                rule="there is no such folder",
                got=str(folder),
                remedy="give a local folder; nothing is downloaded",
            )
        )
    if not (folder / "config.json").is_file():
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
        raise ConfigError(
            Problem(MODEL, rule=f"{folder} is no transformers model: it has no config.json", got=found)
        )


def vocabulary(folder: Path) -> int:
    """Return the rows of the model's embedding: the width of its scores.

    Raises ConfigError if config.json does not say it.
    """
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return int(values.get("text_config", values)["vocab_size"])
    except (ValueError, KeyError, AttributeError) as error:
        raise ConfigError(
            Problem(
                f"{folder}/config.json", rule="says no vocab_size", got=f"{type(error).__name__}: {error}"
            )
        ) from None


def load_tokenizer(folder: Path) -> Any:
    """Return the folder's tokenizer."""
    try:
        return _transformers().AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            Problem(MODEL, rule=f"{folder} has no tokenizer that can be read: {_line(error)}")
        ) from error


def load_model(folder: Path) -> Any:
    """Return the folder's model on the CPU with float32 weights.

    The precision of computation is training.precision.
    """
    transformers = _transformers()
    transformers.utils.logging.disable_progress_bar()
    try:
        model, loading = transformers.AutoModelForCausalLM.from_pretrained(
            str(folder), local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            Problem(MODEL, rule=f"{folder} is no causal language model that can be read: {_line(error)}")
        ) from error
    # transformers only warns of missing weights and leaves them random.
    if loading["missing_keys"]:
        names = ", ".join(sorted(loading["missing_keys"])[:3])
        rule = f"{folder} lacks {len(loading['missing_keys'])} weights of a causal language model"
        raise ConfigError(Problem(MODEL, rule=rule, got=f"without {names}"))
    return model


def new_model(folder: Path) -> Any:
    """Return what `load_model` returns, with weights of any values: the folder's are not read."""
    transformers = _transformers()
    try:
        config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        if (folder / GENERATION).is_file():
            options = transformers.GenerationConfig.from_pretrained(str(folder), local_files_only=True)
            model.generation_config = options
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            Problem(MODEL, rule=f"{folder} is no causal language model that can be read: {_line(error)}")
        ) from error
    return model.eval()  # as what is read is


def with_lora(
    model: Any, *, r: int, alpha: float, dropout: float, target_modules: Sequence[str] | None
) -> Any:
    """Return `model` with frozen weights and trainable low-rank adapters (Hu et al. 2021).

    They are on `target_modules`; None is the modules that peft names for this architecture.
    """
    peft = _peft()
    targets = list(target_modules) if target_modules is not None else None
    config = peft.LoraConfig(
        r=r, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets, task_type="CAUSAL_LM"
    )
    try:
        with warnings.catch_warnings():
            # peft still asks a model by the name that transformers has given up.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            return peft.get_peft_model(model, config)
    except ValueError as error:
        raise ConfigError(
            Problem("task.args.lora.target_modules", rule=_line(error), got=str(targets))
        ) from error


def blocks(model: Any) -> "list[nn.Module]":
    """Return the decoder layers: the modules that transformers does not split across devices."""
    base = _base(model)
    names = set(base._no_split_modules or ())
    found = [module for module in base.modules() if type(module).__name__ in names]
    if not found:
        raise ConfigError(
            Problem(
                MODEL, rule=f"{type(base).__name__} does not say which of its modules are the decoder layers"
            )
        )
    return found


def keeps_packed_apart(model: Any) -> bool:
    """Return whether samples in one row are separated where position ids restart.

    Tried on two short samples.
    """
    rows = [torch.tensor([sample]) for sample in PROBE]
    training = model.training
    model.eval()
    with torch.no_grad():
        alone = torch.cat([scores(model, row, torch.arange(row.shape[1])[None]) for row in rows], dim=1)
        packed = scores(
            model, torch.cat(rows, dim=1), torch.cat([torch.arange(row.shape[1]) for row in rows])[None]
        )
    model.train(training)
    return bool((alone - packed).abs().max() <= 1e-4 * alone.abs().max())


def scores(model: Any, ids: Tensor, positions: Tensor) -> Tensor:
    """Return logits, float32 [batch, time, vocabulary], of `ids` at `positions`, both int64 [batch, time].

    Without a mask and a cache, transformers separates samples where the positions restart.
    """
    logits: Tensor = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    return logits.float()


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write config.json, model.safetensors and the tokenizer's files.

    Adapters are merged into the written weights; `model` does not change.
    """
    base = _base(model)
    base.save_pretrained(str(folder), state_dict=_merged(model) if base is not model else base.state_dict())
    tokenizer.save_pretrained(str(folder))


def save_adapter(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write adapter_config.json, adapter_model.safetensors and the tokenizer's files."""
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


def generate(model: Any, ids: Tensor, tokens: int, pad: int) -> list[int]:
    """Return at most `tokens` token numbers after `ids`, int64 [time], each the likeliest."""
    whole = _base(model).generate(
        input_ids=ids[None],
        attention_mask=torch.ones_like(ids)[None],
        max_new_tokens=tokens,
        do_sample=False,
        pad_token_id=pad,
    )
    return [int(token) for token in whole[0, len(ids) :]]


def _base(model: Any) -> Any:
    """Return the transformers model itself, with adapters in place if it has any."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _merged(model: Any) -> "Mapping[str, Tensor]":
    """Return the weights under the base model's names, with W + scale * B A where there is an adapter."""
    merged = {}
    for name, value in _base(model).state_dict().items():
        # peft keeps the wrapped module as `base_layer` and the adapter's weights beside it as `lora_*`.
        if ".lora_" not in name:
            merged[name.replace(".base_layer.", ".")] = value
    for name, module in _base(model).named_modules():
        if hasattr(module, "get_delta_weight"):
            weight = merged[f"{name}.weight"]
            merged[f"{name}.weight"] = weight + module.get_delta_weight("default").to(weight.dtype)
    return merged


def _transformers() -> Any:
    if not torch.cuda.is_available():
        # transformers imports an installed DeepSpeed, which looks for a GPU and warns on stdout that there is
        # none.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        import transformers
    except ImportError as error:
        raise _missing(error) from error
    return transformers


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise _missing(error) from error
    return peft


def _missing(error: ImportError) -> ConfigError:
    return ConfigError(
        Problem(
            "task.entry",
            rule=f"this task needs transformers and peft: {error}",
            remedy="pip install 'raystack-ml[llm]'",
        )
    )


def _line(error: Exception) -> str:
    """Return the first line of a message."""
    return str(error).strip().partition("\n")[0]
