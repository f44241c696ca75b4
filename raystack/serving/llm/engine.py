"""The sections of a ServePlan -> vLLM with its HTTP routes, started through `ray.serve.llm` in this process.

vLLM says why it cannot start in the logs of its own processes, so its reason is looked for there.
"""

import asyncio
import logging
import os
import re
from pathlib import Path
from typing import Any

from raystack.checkpoint.checksums import verify_model
from raystack.checkpoint.model import HF
from raystack.config.serving import Serving
from raystack.config.tracking import Tracking
from raystack.errors import Problem, ServingError
from raystack.plan.llm import bundles, devices, tensor_parallel_size
from raystack.serving.llm.folder import adapter_folder, model_folder, rank

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Largest ranks of adapters that vLLM can be built for."""
CACHE_GB = 1.0
"""Gigabytes for keys and values on CPUs, whose whole memory vLLM would take otherwise."""
ERROR = re.compile(r"\b(?:[\w.]*(?:Error|Exception)): (\S.*)$", re.MULTILINE)
HINTS = ("See root cause above", "Engine core initialization failed", "died unexpectedly")

logger = logging.getLogger(__name__)


async def start(serving: Serving, tracking: Tracking) -> Any:
    """Return a started LLMServer of `ray.serve.llm`. Raises ServingError for a damaged file, and with vLLM's
    reason.
    """
    assert serving.model is not None
    model = model_folder(serving.model, tracking)
    adapters = {name: adapter_folder(name, uri, tracking) for name, uri in serving.llm.adapters.items()}
    for folder in (model, *adapters.values()):
        if folder.name == HF:
            await asyncio.to_thread(verify_model, folder.parent)
    os.environ.update(environment(serving))
    log = _Log()
    try:
        from ray.serve.llm import LLMConfig
        from ray.serve.llm.deployment import LLMServer

        server = LLMServer.sync_init(LLMConfig(**config(serving, model, adapters)))
        await server.start()
    except Exception as error:  # vLLM's and Ray's own, of many types
        logger.exception("vLLM did not start")
        raise ServingError(Problem("vLLM", rule=reason(str(error), log.since()))) from None
    return server


def config(serving: Serving, model: Path, adapters: dict[str, Path]) -> dict[str, Any]:
    """Return the arguments of `ray.serve.llm.LLMConfig`."""
    llm, name = serving.llm, serving.name
    given = {
        "max_model_len": llm.max_model_len,
        "chat_template": llm.chat_template,
        "kv_cache_memory_bytes": _cache_bytes(serving),
    }
    lora: dict[str, Any] = {}
    if adapters:
        largest = max(rank(adapter) for adapter in adapters.values())
        lora = {
            "enable_lora": True,
            "max_loras": len(adapters),
            "max_lora_rank": next((size for size in RANKS if size >= largest), largest),
            "lora_modules": [{"name": own, "path": str(place)} for own, place in adapters.items()],
        }
    return {
        "model_loading_config": {"model_id": name, "model_source": str(model)},
        "accelerator_config": {"kind": "gpu" if serving.gpus_per_replica else "cpu"},
        "placement_group_config": {"bundles": bundles(serving), "strategy": "PACK"},
        "engine_kwargs": {
            "dtype": llm.dtype,
            "tensor_parallel_size": tensor_parallel_size(serving),
            **{key: value for key, value in given.items() if value is not None},
            **lora,
            **llm.engine_kwargs,
        },
    }


def environment(serving: Serving) -> dict[str, str]:
    """Return the variables of vLLM's processes; what the user has set of vLLM's own takes precedence."""
    wanted = {"VLLM_NO_USAGE_STATS": "1"}
    if not serving.gpus_per_replica:
        # Otherwise each worker takes the machine's cores for itself, whatever Ray has reserved.
        wanted["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    threads = max(1, serving.threads // devices(serving))
    return {key: os.environ.get(key, value) for key, value in wanted.items()} | {
        "OMP_NUM_THREADS": str(threads)
    }


def reason(error: str, log: str) -> str:
    """Return vLLM's reason on one line: out of the error, or of what its processes have logged."""
    own = " ".join(line.strip() for line in error.splitlines() if not _decoration(line))
    found = [line.strip() for line in ERROR.findall(log) if not any(hint in line for hint in HINTS)]
    return found[-1] if found and (not own or any(hint in own for hint in HINTS)) else own


def _decoration(line: str) -> bool:
    return not line.strip() or "For further information visit https://errors.pydantic.dev" in line


def _cache_bytes(serving: Serving) -> int | None:
    size = serving.llm.kv_cache_gb or (None if serving.gpus_per_replica else CACHE_GB)
    return None if size is None else int(size * 1_000_000_000)


class _Log:
    """What this process and those that it starts log from now on: the files that Ray leads it into."""

    def __init__(self) -> None:
        files = {Path(f"/proc/self/fd/{number}").resolve() for number in (1, 2)}
        self._begun = {file: file.stat().st_size for file in files if file.is_file()}

    def since(self) -> str:
        """Return it."""
        return "\n".join(_from(file, begun) for file, begun in self._begun.items())


def _from(file: Path, begun: int) -> str:
    with file.open("rb") as opened:
        opened.seek(begun)
        return opened.read().decode(errors="replace")
