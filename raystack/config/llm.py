"""The part of the serving section that is for language models alone, which vLLM generates with."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt

from raystack.config.names import ModelReference
from raystack.config.section import Pattern, Section, Text

OWN: dict[str, str] = {
    "model": "serving.model",
    "served_model_name": "serving.name",
    "dtype": "serving.llm.dtype",
    "max_model_len": "serving.llm.max_model_len",
    "tensor_parallel_size": "serving.llm.tensor_parallel_size",
    "kv_cache_memory_bytes": "serving.llm.kv_cache_gb",
    "chat_template": "serving.llm.chat_template",
    "enable_lora": "serving.llm.adapters",
    "lora_modules": "serving.llm.adapters",
    "max_lora_rank": "serving.llm.adapters",
    "host": "serving.host",
    "port": "serving.port",
}
"""Arguments of vLLM that a field stands for, with its key."""

AdapterName = Annotated[
    str, Pattern(r"^[A-Za-z0-9][\w.:-]{0,254}$", "should be letters, digits, '_', '.', ':' and '-'")
]

RAYS = ("distributed_executor_backend", "uds", "middleware")
"""Arguments of vLLM that are decided by where it runs."""


def _free(arguments: dict[str, Any]) -> dict[str, Any]:
    for name in arguments:
        if name in OWN:
            raise ValueError(f"should not have '{name}', which {OWN[name]} is for")
        if name in RAYS:
            raise ValueError(f"should not have '{name}', which is decided by where vLLM runs")
    return arguments


class Llm(Section):
    """A language model that vLLM serves by OpenAI's API."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Element type of weights and computation. `auto`: that of the model's files; vLLM makes float32 of them
    bfloat16 or float16.
    """

    max_model_len: PositiveInt | None = None
    """Maximum number of tokens of a prompt with its answer. Not set: the model's own."""

    tensor_parallel_size: PositiveInt | None = None
    """Number of devices that share one copy of the model. Not set: the GPUs of a replica, or 1."""

    kv_cache_gb: PositiveFloat | None = None
    """Gigabytes (10^9 bytes) of each device for the keys and values of tokens. Not set: what vLLM finds free
    on a GPU; 1 on CPUs.
    """

    chat_template: Text | None = None
    """Jinja template that makes a prompt of messages, or the path of a file with it. Not set: the
    tokenizer's.
    """

    adapters: dict[AdapterName, ModelReference] = Field(default={})
    """LoRA adapters by the names that requests choose them with as their `model`: each in the registry, a
    folder or a URL.
    """

    engine_kwargs: Annotated[dict[str, Any], AfterValidator(_free)] = Field(default={})
    """Further arguments of vLLM, by its own names, e.g. `gpu_memory_utilization`."""


WITHOUT_MEANING: dict[str, str | None] = {
    "models": "serve each language model for itself",
    "multiplexed": "serve each language model for itself",
    "grpc_port": "OpenAI's API is for HTTP",
    "graph": None,
    "split": None,
    "verify": None,
    "precision": "set serving.llm.dtype",
    "compile": "set serving.llm.engine_kwargs.compilation_config",
    "warm_up": "vLLM warms up by itself",
    "health": "vLLM checks its engine",
    "batching": "set serving.llm.engine_kwargs.max_num_seqs",
    "lineage": None,
    "payloads": None,
    "drift": None,
    "telemetry": "set serving.llm.engine_kwargs.otlp_traces_endpoint",
}
"""Fields of the serving section that say nothing of a language model, with what to do in their place."""


def changed(section: Section, names: Iterable[str]) -> list[str]:
    """Return those of the fields, as far as the section has them, that are not as by default."""
    fields = type(section).model_fields
    return [
        name
        for name in names
        if name in fields and getattr(section, name) != fields[name].get_default(call_default_factory=True)
    ]
