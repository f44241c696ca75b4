"""A version is loaded beside the one that answers and takes its place without a request that fails; one that
cannot be loaded leaves the old one answering.
"""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from raystack.checkpoint.signing import sign
from raystack.config.serving import Batching, Serving
from raystack.config.sign import Sign, Verify
from raystack.config.tracking import Tracking
from raystack.errors import ConfigError, ServingError
from raystack.serving.host import Host

pytestmark = pytest.mark.usefixtures("threads")
BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}


@pytest.fixture
def model(model_folder: Callable[..., Path], tmp_path: Path) -> Callable[..., str]:
    """Writes the checkpoint of a step, whose task is broken as it is told, and returns its folder."""

    def write(step: int, broken: str | None = None) -> str:
        whole = model_folder(broken)
        (tmp_path / "code").rename(tmp_path / f"code-{step}")
        card = whole / "model.json"
        card.write_text(json.dumps({**json.loads(card.read_text()), "step": step}))
        return str(whole.rename(tmp_path / f"step-{step}"))

    return write


def serving(model: str, **changes: Any) -> Serving:
    return Serving(model=model, name="demo", **changes)


def host() -> Host:
    return Host("demo", Tracking(kind="off"))


def client(of: Host) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(of), base_url="http://host/v2/models/demo")


async def answering(asked: httpx.AsyncClient) -> str:
    """The version that answers."""
    response = await asked.post("/infer", json=BODY)
    assert response.status_code == 200, response.text
    return str(response.json()["model_version"])


async def until_answering(asked: httpx.AsyncClient, version: str) -> None:
    async with asyncio.timeout(30):
        while await answering(asked) != version:
            await asyncio.sleep(0.01)


def test_what_was_prepared_answers_at_once(model: Callable[..., str]) -> None:
    async def run() -> None:
        one, two = serving(model(1)), serving(model(2))
        replica = host()
        await replica.apply(one)
        async with client(replica) as asked:
            assert await replica.prepare(two) == "2"
            assert await answering(asked) == "1"
            await replica.apply(two)
            assert await answering(asked) == "2"
            assert (await asked.get("/versions/1/ready")).status_code == 503

    asyncio.run(run())


def test_an_answer_names_its_version_and_run_if_it_is_to(model: Callable[..., str]) -> None:
    async def run() -> None:
        replica, folder = host(), model(1)
        await replica.apply(serving(folder))
        async with client(replica) as asked:
            without = (await asked.post("/infer", json=BODY)).headers
            await replica.apply(serving(folder, lineage=True))
            told = (await asked.post("/infer", json=BODY)).headers
        named = {key: value for key, value in told.items() if key.startswith("raystack-")}
        card = json.loads(Path(folder, "model.json").read_text())
        assert named == {"raystack-model": "demo", "raystack-version": "1", "raystack-run": card["run_id"]}
        assert not any(key.startswith("raystack-") for key in without)

    asyncio.run(run())


def test_under_load_no_request_fails_while_versions_change(model: Callable[..., str]) -> None:
    async def run() -> None:
        versions = [serving(model(step)) for step in (1, 2)]
        replica = host()
        await replica.apply(versions[0])
        seen: list[str] = []
        ends = False

        async def load(asked: httpx.AsyncClient) -> None:
            while not ends:
                seen.append(await answering(asked))

        async with client(replica) as asked:
            requests = [asyncio.create_task(load(asked)) for _ in range(4)]
            for turn in range(1, 7):
                await replica.prepare(versions[turn % 2])
                await asyncio.sleep(0.05)
                await replica.apply(versions[turn % 2])
                await asyncio.sleep(0.05)
            ends = True
            await asyncio.gather(*requests)
        assert set(seen) == {"1", "2"}

    asyncio.run(run())


@pytest.mark.parametrize("broken", ["model", "predict", "dtype", "folder"])
def test_what_cannot_be_loaded_changes_nothing(model: Callable[..., str], broken: str) -> None:
    async def run() -> None:
        one = serving(model(1))
        bad = serving("/nothing" if broken == "folder" else model(2, broken))
        replica = host()
        await replica.apply(one)
        async with client(replica) as asked:
            with pytest.raises((ConfigError, ServingError)):
                await replica.prepare(bad)
            await replica.apply(bad)  # as under a RayService, where nobody has asked before
            await asyncio.sleep(0.3)
            assert await answering(asked) == "1"
            await replica.apply(serving(model(3)))
            await until_answering(asked, "3")

    asyncio.run(run())


def test_a_first_version_that_cannot_be_loaded_is_an_error(model: Callable[..., str]) -> None:
    async def run() -> None:
        with pytest.raises(ServingError, match="a bad sample"):
            await host().apply(serving(model(1, "predict")))

    asyncio.run(run())


def test_limits_change_without_a_load(model: Callable[..., str]) -> None:
    async def run() -> None:
        folder, replica = model(1), host()
        await replica.apply(serving(folder))
        before = replica.server.model("demo").version()
        async with client(replica) as asked:
            await replica.apply(serving(folder, body_mb=0.00001, timeout_s=3))
            assert (await asked.post("/infer", json=BODY)).status_code == 413
        assert replica.server.model("demo").version() is before
        assert replica.server.model("demo").timeout_s == 3

    asyncio.run(run())


def test_tokens_change_without_a_load(
    model: Callable[..., str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ONE", "one")
    monkeypatch.setenv("TWO", "two")

    async def run() -> None:
        folder, replica = model(1), host()
        one, two, gone = (
            serving(folder, tokens={"a": f"secret:env:{name}"}) for name in ("ONE", "TWO", "GONE")
        )
        with pytest.raises(ConfigError, match=r"serving\.tokens\.a: secret:env:GONE: there is no such"):
            await replica.apply(gone)
        await replica.apply(one)
        async with client(replica) as asked:

            async def let_in(token: str) -> bool:
                headers = {"authorization": f"Bearer {token}"}
                return (await asked.post("/infer", json=BODY, headers=headers)).status_code == 200

            assert [await let_in(token) for token in ("one", "two")] == [True, False]
            await replica.apply(two)
            assert [await let_in(token) for token in ("one", "two")] == [False, True]
            with pytest.raises(ConfigError, match="secret:env:GONE"):
                await replica.prepare(gone)
            await replica.apply(gone)
            assert "secret:env:GONE" in caplog.text
            assert "the tokens are what they were" in caplog.text
            assert [await let_in(token) for token in ("one", "two")] == [False, True]
            await replica.apply(serving(folder))
            assert await let_in("anybody")

    asyncio.run(run())


def test_another_batching_of_the_same_version_takes_its_place(model: Callable[..., str]) -> None:
    async def run() -> None:
        folder, replica = model(1), host()
        await replica.apply(serving(folder))
        async with client(replica) as asked:
            other = serving(folder, batching=Batching(max_size=2))
            await replica.prepare(other)
            await replica.apply(other)
            assert await answering(asked) == "1"
            assert replica.server.model("demo").version().engine.max_size == 2  # type: ignore[union-attr]

    asyncio.run(run())


def test_the_check_predicts_unless_the_model_has_answered_since(
    model: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raystack.serving.host.PROBE_S", 0.0)

    async def run() -> None:
        folder, replica = model(1), host()
        await replica.apply(serving(folder))
        engine = replica.server.model("demo").version().engine
        assert engine is not None

        def passes() -> int:
            return sum(each.count for each in engine.passes.values())

        before = passes()
        await replica.check()
        assert passes() == before, "it was loaded just now"
        await replica.check()
        assert passes() == before + 1
        monkeypatch.setattr("raystack.serving.host.PROBE_S", 60.0)
        await replica.check()
        assert passes() == before + 1, "not so often"
        monkeypatch.setattr("raystack.serving.host.PROBE_S", 0.0)
        async with client(replica) as asked:
            await answering(asked)
        await replica.check()
        assert passes() == before + 2, "the request was proof enough"
        await replica.check()
        assert passes() == before + 3
        await replica.apply(serving(folder, health="process"))
        await replica.check()
        await replica.check()
        assert passes() == before + 3

    asyncio.run(run())


def test_warm_up_predicts_whole_batches_before_the_version_answers(model: Callable[..., str]) -> None:
    async def run() -> None:
        replica = host()
        await replica.apply(serving(model(1), warm_up=3, batching=Batching(max_size=5)))
        engine = replica.server.model("demo").version().engine
        assert engine is not None
        assert {size: each.count for size, each in engine.passes.items()} == {5: 3}

    asyncio.run(run())


def test_a_version_that_is_not_as_it_was_signed_leaves_the_old_one(
    model: Callable[..., str], tmp_path: Path
) -> None:
    pytest.importorskip("model_signing")
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    key = generate_private_key(SECP256R1())
    private, public = tmp_path / "key.pem", tmp_path / "key.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    folders = [Path(model(1)), Path(model(2))]
    for folder in folders:
        sign([folder], folder, Sign(key=f"secret:file:{private}"))
    weights = folders[1] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + bytes([weights.read_bytes()[-1] ^ 1]))
    trusted = Verify(key=f"secret:file:{public}")
    one, two = (serving(str(folder), verify=trusted) for folder in folders)

    async def run() -> None:
        replica = host()
        await replica.apply(one)
        with pytest.raises(
            ServingError, match=r"model\.safetensors does not have the digest that was signed"
        ):
            await replica.prepare(two)
        async with client(replica) as asked:
            assert await answering(asked) == "1"

    asyncio.run(run())
