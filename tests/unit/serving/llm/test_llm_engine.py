"""What vLLM is started with, and how its reason is told where it does not start. vLLM is not imported."""

import asyncio
import json
from pathlib import Path

import pytest

from raystack.checkpoint.checksums import write_checksums
from raystack.checkpoint.manifest import describe_file
from raystack.config.serving import Serving
from raystack.config.tracking import Tracking
from raystack.errors import ConfigError, LaunchError, ServingError
from raystack.serving.llm.arguments import check_known
from raystack.serving.llm.check import check, example, with_template
from raystack.serving.llm.engine import config, environment, reason, start

SECTION = Serving(kind="llm", name="story", model="/models/story")


def changed(**values: object) -> Serving:
    return Serving.model_validate({"kind": "llm", "name": "story", "model": "/models/story", **values})


def test_a_model_on_cpus() -> None:
    given = config(SECTION, Path("/models/story/hf"), {})
    assert given["model_loading_config"] == {"model_id": "story", "model_source": "/models/story/hf"}
    assert given["accelerator_config"] == {"kind": "cpu"}
    assert given["placement_group_config"] == {"bundles": [{"CPU": 1.0}], "strategy": "PACK"}
    assert given["engine_kwargs"] == {
        "dtype": "auto",
        "tensor_parallel_size": 1,
        "kv_cache_memory_bytes": 1_000_000_000,
    }


def test_a_model_over_several_gpus() -> None:
    serving = changed(
        gpus_per_replica=4,
        cpus_per_replica=2,
        llm={"dtype": "bfloat16", "max_model_len": 64, "engine_kwargs": {"pipeline_parallel_size": 2}},
    )
    given = config(serving, Path("/m"), {})
    assert given["accelerator_config"] == {"kind": "gpu"}
    assert given["placement_group_config"]["bundles"] == [{"GPU": 1.0, "CPU": 0.5}] * 4
    arguments = {"dtype": "bfloat16", "tensor_parallel_size": 2, "max_model_len": 64}
    assert given["engine_kwargs"] == {**arguments, "pipeline_parallel_size": 2}


def test_adapters_have_room_for_the_largest(tmp_path: Path) -> None:
    for name, rank in (("a", 4), ("b", 20)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text(json.dumps({"r": rank}))
    given = config(SECTION, Path("/m"), {name: tmp_path / name for name in ("a", "b")})["engine_kwargs"]
    assert given["enable_lora"]
    assert (given["max_loras"], given["max_lora_rank"]) == (2, 32)
    assert given["lora_modules"][1] == {"name": "b", "path": f"{tmp_path}/b"}


def test_threads_are_those_that_ray_reserves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_CPU_OMP_THREADS_BIND", raising=False)
    found = environment(changed(cpus_per_replica=6, llm={"tensor_parallel_size": 2}))
    assert (found["OMP_NUM_THREADS"], found["VLLM_CPU_OMP_THREADS_BIND"]) == ("3", "nobind")
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0-1")
    assert environment(SECTION)["VLLM_CPU_OMP_THREADS_BIND"] == "0-1", "the user's own stays"
    assert "VLLM_CPU_OMP_THREADS_BIND" not in environment(changed(gpus_per_replica=1))


def test_a_damaged_file_of_an_export_is_named_before_vllm_is_started(tmp_path: Path) -> None:
    hf = tmp_path / "model" / "hf"
    hf.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (hf / name).write_text('{"model_type": "llama"}')
    write_checksums(hf.parent, {"hf/model.safetensors": describe_file(hf / "model.safetensors")})
    (hf / "model.safetensors").write_text("{'model_type': 'llama'}")
    with pytest.raises(ServingError, match=r"hf/model\.safetensors: the SHA-256 of this file is not"):
        asyncio.run(start(changed(model=str(tmp_path)), Tracking(kind="off")))


PYDANTIC = """Failed to create vLLM engine config: 1 validation error for ModelConfig
  Value error, User-specified max_model_len (99) is greater than the derived max_model_len (64)
    For further information visit https://errors.pydantic.dev/2.14/v/value_error
"""
LOG = """(EngineCore pid=3) INFO loading
(EngineCore pid=3) Traceback (most recent call last):
(EngineCore pid=3) ValueError: To serve at least one request, 2 GiB KV cache is needed
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""


def test_the_reason_is_one_line() -> None:
    told = reason(PYDANTIC, "")
    assert "\n" not in told
    assert told.endswith("max_model_len (99) is greater than the derived max_model_len (64)")
    ended = "Engine core initialization failed. See root cause above. Failed core proc(s): {}"
    assert reason(ended, LOG) == "To serve at least one request, 2 GiB KV cache is needed"
    assert reason(ended, "") == ended


def test_without_vllm_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raystack.serving.llm.arguments.find_spec", lambda name: None)
    with pytest.raises(LaunchError, match=r"serving\.kind: .* vLLM, which is not .*\[vllm\]"):
        check(SECTION, Tracking(kind="off"))


def test_an_adapter_cannot_have_the_models_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("raystack.serving.llm.check.check_installed", lambda: tmp_path)
    monkeypatch.setattr("raystack.serving.llm.check.model_folder", lambda *given: tmp_path)
    with pytest.raises(ConfigError, match=r"serving\.llm\.adapters: is also the model's own name"):
        check(changed(llm={"adapters": {"story": "/a"}}), Tracking(kind="off"))


def test_an_argument_that_vllm_does_not_have_is_refused_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    source = "class EngineArgs:\n    max_num_seqs: int = 1\n\nclass Other:\n    max_seqs: int = 1\n"
    (tmp_path / "engine" / "arg_utils.py").write_text(source)
    check_known(["max_num_seqs"], tmp_path)
    with pytest.raises(ConfigError, match=r"engine_kwargs\.max_seqs: vLLM has no .*'max_num_seqs'\?"):
        check_known(["max_seqs"], tmp_path)
    check_known(["whatever"], tmp_path / "of another layout")


def test_a_chat_template_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "chat.jinja").write_text("{{ messages }}")
    llm = changed(llm={"chat_template": str(tmp_path / "chat.jinja")}).llm
    assert with_template(llm).chat_template == "{{ messages }}"
    assert with_template(with_template(llm)) == with_template(llm)
    with pytest.raises(ConfigError, match=r"serving\.llm\.chat_template: is neither .* nor a file"):
        with_template(changed(llm={"chat_template": "/nothing.jinja"}).llm)


def test_the_example_is_a_chat_where_there_is_a_template(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_text('{"model_type": "llama"}')
    serving = changed(model=str(tmp_path))
    off = Tracking(kind="off")
    told = example(serving, off, "http://127.0.0.1:8000/v1")
    assert told.startswith("curl -s http://127.0.0.1:8000/v1/completions -H ")
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    assert "/v1/chat/completions -H " in example(serving, off, "http://127.0.0.1:8000/v1")
