"""A real vLLM, on CPUs, behind `raystack serve`, asked by OpenAI's own client.

`make vllm` installs it, and `make test-vllm` runs this.
"""

import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from driver import TINY
from processes import Command

openai = pytest.importorskip("openai", reason="needs the extra vllm: make vllm")
pytest.importorskip("vllm", reason="needs the extra vllm: make vllm")
llama = pytest.importorskip("llama", reason="needs the extra llm")

pytestmark = [
    pytest.mark.ray,
    pytest.mark.long,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("default"),  # of vLLM's import and of transformers
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    llama.make(folder)
    return folder


def test_it_is_asked_by_openais_client(made: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    own = ["serving.kind=llm", f"serving.model={made}/model", "serving.name=fox", f"serving.port={port}"]
    own += [f"serving.llm.adapters.poet={made}/poet", "serving.llm.max_model_len=128"]
    own += [
        "serving.llm.dtype=float32",
        "serving.llm.engine_kwargs.enforce_eager=true",
        "serving.body_mb=0.01",
    ]
    run = Command([sys.executable, "-m", "raystack.serve", str(TINY), *own], dict(os.environ))
    run.until("serving until Ctrl-C")
    assert f"http://127.0.0.1:{port}/v1/chat/completions" in run.output
    url = f"http://127.0.0.1:{port}/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=120) as client:
        goes_on(client)
        chats(client)
        refuses(client)
    run.terminate()
    run.wait()
    assert "Traceback" not in run.output, run.output
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0, "the port is free"


def goes_on(client: Any) -> None:
    """By heart, and with the adapter by its own heart."""
    assert {each.id for each in client.models.list()} == {"fox", "poet"}
    for model, text in (("fox", llama.TEXT), ("poet", llama.OTHER)):
        answer = client.completions.create(model=model, prompt="The fox", max_tokens=60, temperature=0)
        assert "The fox" + answer.choices[0].text == text
        assert answer.choices[0].finish_reason == "stop"


def chats(client: Any) -> None:
    """Whole, and as it is generated."""
    ask = {"model": "fox", "messages": [{"role": "user", "content": llama.QUESTION}], "temperature": 0}
    assert client.chat.completions.create(**ask).choices[0].message.content == llama.ANSWER
    events = client.chat.completions.create(**ask, stream=True)
    parts = [event.choices[0].delta.content or "" for event in events]
    assert "".join(parts) == llama.ANSWER
    assert len(parts) > 5, parts


def refuses(client: Any) -> None:
    """As OpenAI does."""
    with pytest.raises(openai.NotFoundError, match="The model `foxx` does not exist"):
        client.completions.create(model="foxx", prompt="The fox")
    with pytest.raises(openai.BadRequestError, match="128"):
        client.completions.create(model="fox", prompt="The fox", max_tokens=1000)
    with pytest.raises(openai.APIStatusError, match="body: should have at most") as raised:
        client.completions.create(model="fox", prompt="The fox " * 2000)
    assert raised.value.status_code == 413
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="fox", messages=[{"role": "user"}], temperature="hot")


def test_what_vllm_refuses_ends_the_command_with_its_reason(made: Path) -> None:
    own = ["serving.kind=llm", f"serving.model={made}/model", "serving.name=fox"]
    asked = [*own, "serving.llm.max_model_len=4096"]
    run = Command([sys.executable, "-m", "raystack.serve", str(TINY), *asked], dict(os.environ))
    assert run.wait() == 6, run.output
    (error,) = [line for line in run.lines if line.startswith("error: ")]
    assert "max_model_len (4096) is greater than" in error
    assert "Traceback" not in run.output
