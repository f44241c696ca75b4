"""A driver takes a token to a cluster that asks for one, and none to one that has none."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from raystack.environment import token
from raystack.errors import LaunchError

Cluster = Callable[[str | None], str]


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A new one; what is set meanwhile is undone."""
    for name in (token.MODE, "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Starts what answers as Ray's GCS does, with the token it is given or with none; gives its address."""
    servers: list[Any] = []

    def start(config: str | None) -> str:
        def answer(request: bytes, context: Any) -> bytes:
            if (
                config is not None
                and dict(context.invocation_metadata()).get("authorization") != f"Bearer {config}"
            ):
                context.abort(
                    grpc.StatusCode.UNAUTHENTICATED,
                    "InvalidAuthToken: Authentication token is missing or incorrect",
                )
            return b""

        server = grpc.server(ThreadPoolExecutor(1))
        handler = grpc.unary_unary_rpc_method_handler(answer)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("ray.rpc.NodeInfoGcsService", {"GetClusterId": handler}),)
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(None).wait(10)


def keep(home: Path, text: str) -> None:
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text(f"{text}\n")


def test_a_token_of_the_home_folder_is_used_where_the_cluster_asks_for_it(
    cluster: Cluster, home: Path
) -> None:
    keep(home, "sesame")
    token.settle_joined(cluster("sesame"))
    assert os.environ[token.MODE] == "token"


def test_a_token_of_the_home_folder_stays_there_where_the_cluster_has_none(
    cluster: Cluster, home: Path
) -> None:
    keep(home, "sesame")
    token.settle_joined(cluster(None))
    assert token.MODE not in os.environ


def test_auto_is_the_cluster_that_was_started_last(
    cluster: Cluster, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(home, "sesame")
    monkeypatch.setenv("RAY_TMPDIR", str(home))
    (home / "ray").mkdir()
    (home / "ray" / "ray_current_cluster").write_text(cluster(None))
    token.settle_joined("auto")
    assert token.MODE not in os.environ


@pytest.mark.parametrize(
    ("config", "kept", "mode", "told"),
    [
        (
            "sesame",
            None,
            None,
            r"target.address: the cluster asks for a token, and there is none \(got .*\); set RAY_AUTH_TOKEN",
        ),
        (
            "sesame",
            "sesame",
            "disabled",
            r"target.address: the cluster asks for a token, .*; unset RAY_AUTH_MODE",
        ),
        (
            "sesame",
            "mellon",
            None,
            r"target.address: the cluster refuses the token \(got .*\); give the cluster's own",
        ),
        (None, "sesame", "token", r"RAY_AUTH_MODE: the cluster was started without a token, .*; unset it"),
    ],
)
def test_what_would_end_without_a_reason_is_told(
    config: str | None,
    kept: str | None,
    mode: str | None,
    told: str,
    cluster: Cluster,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if kept is not None:
        keep(home, kept)
    if mode is not None:
        monkeypatch.setenv(token.MODE, mode)
    with pytest.raises(LaunchError, match=f"^{told}"):
        token.settle_joined(cluster(config))


@pytest.mark.parametrize("address", ["ray://127.0.0.1:10001", "auto", "127.0.0.1:1"])
def test_a_cluster_that_cannot_be_asked_gets_the_token_there_is(
    address: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(home))
    keep(home, "sesame")
    token.settle_joined(address)
    assert os.environ[token.MODE] == "token"


def test_a_home_that_cannot_be_written_to_needs_no_token_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc")
    token.settle_own()
    first = token.found()
    assert first is not None
    assert len(first) == 64
    token.settle_own()
    assert token.found() == first


def test_ray_makes_its_token_where_the_home_can_hold_it() -> None:
    token.settle_own()
    assert "RAY_AUTH_TOKEN" not in os.environ


@pytest.mark.parametrize("home", ["/nonexistent", "/dev/null", "/proc"])
def test_no_token_is_found_where_there_is_no_home(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", home)
    assert token.found() is None
