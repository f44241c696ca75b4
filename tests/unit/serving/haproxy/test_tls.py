"""TLS: the files are checked before anything listens, and HAProxy speaks it for HTTP and gRPC."""

import asyncio
import os
import shlex
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import httpx
import pytest
from authority import Authority
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from fronting import listens, until, written

from raystack.config.access import Tls
from raystack.errors import ConfigError
from raystack.ray_internals import haproxy
from raystack.ray_internals import serve as internals
from raystack.serving import front as front_of_serve
from raystack.serving.access import Access
from raystack.serving.certificate import check, covers, speaks_tls
from raystack.serving.grpc.probe import is_ready
from raystack.serving.grpc.services import add
from raystack.serving.server import Server

with_haproxy = pytest.mark.skipif(internals.haproxy() is None, reason="there is no HAProxy for this machine")
DESCRIBE = "/inference.GRPCInferenceService/ServerMetadata"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def tls(authority: Authority) -> Tls:
    certificate, key = authority.issue("server", "models.example", "127.0.0.1")
    return Tls(certificate=str(certificate), key=str(key))


def problem(tls: Tls) -> str:
    with pytest.raises(ConfigError) as caught:
        check(tls)
    (found,) = caught.value.problems
    return str(found)


class TestFiles:
    """What is said of files that cannot be used."""

    def test_good_ones(self, tls: Tls, authority: Authority) -> None:
        check(tls)
        check(tls.model_copy(update={"client_ca": str(authority.file)}))

    def test_a_certificate_without_names(self, authority: Authority) -> None:
        certificate, key = authority.issue("nameless")
        nameless = Tls(certificate=str(certificate), key=str(key))
        check(nameless)
        assert covers(nameless, "127.0.0.1") == (False, None)

    @pytest.mark.parametrize("field", ["certificate", "key", "client_ca"])
    def test_a_missing_one(self, tls: Tls, tmp_path: Path, field: str) -> None:
        gone = str(tmp_path / "gone")
        said = f"serving.tls.{field}: cannot be read on this machine: No such file or directory (got {gone})"
        assert problem(tls.model_copy(update={field: gone})) == said

    @pytest.mark.parametrize("field", ["certificate", "key", "client_ca"])
    def test_one_that_is_something_else(self, tls: Tls, tmp_path: Path, field: str) -> None:
        (tmp_path / "other").write_text("hello")
        said = problem(tls.model_copy(update={field: str(tmp_path / "other")}))
        assert said.startswith(f"serving.tls.{field}: should have ")

    def test_the_key_of_another_certificate(self, tls: Tls, authority: Authority) -> None:
        other = str(authority.issue("other")[1])
        said = f"serving.tls.key: is the key of another certificate (got {other})"
        assert problem(tls.model_copy(update={"key": other})) == said

    def test_a_key_with_a_passphrase(self, tls: Tls, tmp_path: Path) -> None:
        key = load_pem_private_key(Path(tls.key).read_bytes(), None)
        locked = str(tmp_path / "locked.key")
        Path(locked).write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
        )
        said = f"serving.tls.key: should have a private key in PEM, without a passphrase (got {locked})"
        assert problem(tls.model_copy(update={"key": locked})) == said

    def test_an_expired_certificate(self, authority: Authority) -> None:
        certificate, key = authority.issue("old", "localhost", days=-1)
        said = "would not be accepted: certificate has expired"
        expected = f"serving.tls.certificate: {said} (got {certificate})"
        assert problem(Tls(certificate=str(certificate), key=str(key))) == expected

    def test_paths_are_absolute(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(tmp_path)
        assert Tls(certificate="a.pem", key="~/b").certificate == str(tmp_path / "a.pem")


class TestCurl:
    """The command that is shown after a deployment."""

    URL = "https://127.0.0.1:8443/v2"

    def test_a_token_is_referred_to(self) -> None:
        bare = Access("secret:env:APP_TOKEN").curl("http://a/v2")
        assert bare == 'curl -s -H "Authorization: Bearer $APP_TOKEN" http://a/v2'
        file = Access("secret:file:/run/a token").curl("http://a/v2")
        assert file == "curl -s -H \"Authorization: Bearer $(cat '/run/a token')\" http://a/v2"

    def test_the_certificate_is_for_the_address(self, tls: Tls) -> None:
        assert Access(None, tls).curl(self.URL) == f"curl -s --cacert {tls.certificate} {self.URL}"

    def test_the_certificate_is_for_a_name(self, authority: Authority) -> None:
        certificate, key = authority.issue("named", "*.example", "models.example")
        named = Tls(certificate=str(certificate), key=str(key), client_ca=str(authority.file))
        assert Access(None, named).curl(self.URL) == (
            f"curl -s --cacert {certificate} --cert CLIENT.pem --key CLIENT.key "
            "--connect-to models.example:8443:127.0.0.1:8443 https://models.example:8443/v2"
        )


def spoken(port: int, *protocols: str) -> str | None:
    """What the server chooses of the protocols that a client speaks."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(list(protocols or ("http/1.1", "h2")))
    with (
        socket.create_connection(("127.0.0.1", port), 10) as plain,
        context.wrap_socket(plain) as private,
    ):
        return private.selected_alpn_protocol()


class _Replica(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = (self.headers["Authorization"] or "nothing").encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def replica() -> Iterator[tuple[int, int]]:
    """The ports of what answers over HTTP, and over gRPC."""
    web = ThreadingHTTPServer(("127.0.0.1", 0), _Replica)
    started: Future[int] = Future()
    stop: Future[None] = Future()

    async def run() -> None:
        server = grpc.aio.server()
        add(server, Server())
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        started.set_result(port)
        await asyncio.wrap_future(stop)
        await server.stop(0)

    threads = [
        threading.Thread(target=web.serve_forever, args=(0.02,)),
        threading.Thread(target=asyncio.run, args=(run(),)),
    ]
    for thread in threads:
        thread.start()
    yield web.server_port, started.result(20)
    stop.set_result(None)
    web.shutdown()
    web.server_close()
    for thread in threads:
        thread.join()


@dataclass
class Front:
    """An HAProxy that runs."""

    port: int
    grpc_port: int
    tls: Tls

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def access(self) -> Access:
        return Access(None, self.tls)


def front(tmp_path: Path, replica: tuple[int, int], tls: Tls) -> Iterator[Front]:
    from ray.serve._private.common import RequestProtocol
    from ray.serve._private.haproxy import BackendConfig, ServerConfig

    backends = [
        BackendConfig(
            name=f"{protocol.value.lower()}-a",
            path_prefix="/",
            app_name="a",
            servers=[ServerConfig(name="there", host="127.0.0.1", port=port)],
            protocol=protocol,
        )
        for protocol, port in zip((RequestProtocol.HTTP, RequestProtocol.GRPC), replica, strict=True)
    ]
    file, port = written(tmp_path, backends, grpc=True)
    # The replica of a test has no check of its health that Ray's config would believe.
    text = file.read_text()
    grpc_port = int(text.partition("frontend grpc_frontend")[2].partition(" proto h2")[0].rpartition(":")[2])
    file.write_text("\n".join(_unchecked(line) for line in text.splitlines()) + "\n")
    binary = internals.haproxy()
    assert binary is not None
    launcher = tmp_path / "launcher with a space"
    haproxy.write_launcher(launcher, binary, 5.0, haproxy.Tls(tls.certificate, tls.key, tls.client_ca))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    process = subprocess.Popen([launcher, "-db", "-f", str(file)], env=environment)
    try:
        until(lambda: listens(port) and listens(grpc_port))
        yield Front(port, grpc_port, tls)
    finally:
        process.kill()
        process.wait()


def _unchecked(line: str) -> str:
    return line.partition(" check")[0] if line.strip().startswith("server ") else line


@with_haproxy
class TestServer:
    """What clients see, with the binary and the config that Ray has."""

    @pytest.fixture
    def front(self, tmp_path: Path, replica: tuple[int, int], tls: Tls) -> Iterator[Front]:
        yield from front(tmp_path, replica, tls)

    def test_http_and_grpc_are_private(self, front: Front, authority: Authority) -> None:
        trusted = ssl.create_default_context(cafile=str(authority.file))
        assert httpx.get(front.url, verify=trusted, headers={"Authorization": "Bearer x"}).text == "Bearer x"
        assert [spoken(port) for port in (front.port, front.grpc_port)] == ["h2", "h2"]
        assert [spoken(port, "http/1.1") for port in (front.port, front.grpc_port)] == ["http/1.1", None]
        with front.access.open(front.url, 5) as response:
            assert response.read() == b"nothing"
        assert is_ready(f"127.0.0.1:{front.grpc_port}", front.tls)
        assert not is_ready(f"127.0.0.1:{front.grpc_port}")
        credentials = grpc.ssl_channel_credentials(authority.file.read_bytes())
        with grpc.secure_channel(f"127.0.0.1:{front.grpc_port}", credentials) as channel:
            assert channel.unary_unary(DESCRIBE)(b"", timeout=10)
        assert speaks_tls("127.0.0.1", front.port)

    @pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")
    def test_the_shown_command_works(self, front: Front) -> None:
        command = Access(None, front.tls).curl(front.url)
        done = subprocess.run(shlex.split(command), capture_output=True, check=True, timeout=20)
        assert done.stdout == b"nothing"

    def test_programs_of_this_machine_have_the_token(
        self, front: Front, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SOME_TOKEN", "some")
        with replace(front.access, token="secret:env:SOME_TOKEN").open(front.url, 5) as response:
            assert response.read() == b"Bearer some"

    def test_strangers_are_not_trusted_and_old_versions_refused(
        self, front: Front, tmp_path: Path, authority: Authority
    ) -> None:
        (tmp_path / "others").mkdir()
        other = Authority(tmp_path / "others").issue("server", "127.0.0.1")
        stranger = replace(front, tls=Tls(certificate=str(other[0]), key=str(other[1])))
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            stranger.access.open(front.url, 5)
        assert not is_ready(f"127.0.0.1:{front.grpc_port}", stranger.tls)
        old = ssl.create_default_context(cafile=str(authority.file))
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLS"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.warns(DeprecationWarning, match="TLS"):
            old.minimum_version = ssl.TLSVersion.TLSv1
        with pytest.raises(httpx.ConnectError):
            httpx.get(front.url, verify=old)

    def test_without_tls_nothing_is_answered(self, front: Front) -> None:
        with pytest.raises(httpx.HTTPError):
            httpx.get(front.url.replace("https", "http"))


@with_haproxy
class TestClientCertificates:
    """Of a client that has none, only questions of health are answered."""

    @pytest.fixture
    def front(
        self, tmp_path: Path, replica: tuple[int, int], tls: Tls, authority: Authority
    ) -> Iterator[Front]:
        yield from front(tmp_path, replica, tls.model_copy(update={"client_ca": str(authority.file)}))

    def test_who_has_one_is_answered(self, front: Front, authority: Authority) -> None:
        context = ssl.create_default_context(cafile=str(authority.file))
        context.load_cert_chain(*authority.issue("client"))
        assert httpx.get(front.url, verify=context).text == "nothing"
        certificate, key = (file.read_bytes() for file in authority.issue("client"))
        credentials = grpc.ssl_channel_credentials(authority.file.read_bytes(), key, certificate)
        with grpc.secure_channel(f"127.0.0.1:{front.grpc_port}", credentials) as channel:
            assert channel.unary_unary(DESCRIBE)(b"", timeout=10)

    def test_who_has_none_is_told_of_health_alone(self, front: Front, authority: Authority) -> None:
        trusted = ssl.create_default_context(cafile=str(authority.file))
        with httpx.Client(verify=trusted, base_url=front.url) as client:
            for path in (
                "/v2/health/ready",
                "/v2/models/a/ready",
                "/v2/models/a/versions/3/ready",
                "/health",
            ):
                assert client.get(path).status_code == 200
            for path in ("/", "/-/routes", "/v2/models/a", "/v2/models/a/ready/x", "/v2/health/live/../x"):
                answer = client.get(path)
                assert (answer.status_code, answer.json()) == (403, {"error": haproxy.UNKNOWN})
        credentials = grpc.ssl_channel_credentials(authority.file.read_bytes())
        with grpc.secure_channel(f"127.0.0.1:{front.grpc_port}", credentials) as channel:
            assert channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=10)
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(DESCRIBE)(b"", timeout=10)
        error: Any = caught.value
        assert (error.code(), error.details()) == (grpc.StatusCode.UNAUTHENTICATED, haproxy.UNKNOWN)
        assert is_ready(f"127.0.0.1:{front.grpc_port}", front.tls)

    def test_one_of_another_authority_is_refused(
        self, front: Front, authority: Authority, tmp_path: Path
    ) -> None:
        (tmp_path / "others").mkdir()
        context = ssl.create_default_context(cafile=str(authority.file))
        context.load_cert_chain(*Authority(tmp_path / "others").issue("client"))
        with pytest.raises(httpx.HTTPError):
            httpx.get(front.url, verify=context)


@with_haproxy
def test_haproxy_alone_listens_on_every_interface(tmp_path: Path, tls: Tls) -> None:
    file, port = written(tmp_path, [], grpc=True)
    given = haproxy.Tls(tls.certificate, tls.key, None, "0.0.0.0")
    config = haproxy.changed(file.read_text(), tmp_path, "1000", {}, given)
    binds = [line.split()[1] for line in config.splitlines() if line.strip().startswith("bind ")]
    assert f"127.0.0.1:{port}" in file.read_text()
    assert [bind.partition(":")[0] for bind in binds] == ["*", "*"]


def test_replicas_listen_for_grpc_on_the_loopback_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.serve._private import default_impl

    monkeypatch.setattr(default_impl, "add_grpc_address", default_impl.add_grpc_address)
    monkeypatch.setenv(haproxy.LOOPBACK, "1")
    front_of_serve.middlewares()
    asked: list[str] = []
    server: Any = SimpleNamespace(add_insecure_port=asked.append)
    default_impl.add_grpc_address(server, "[::]:20001")
    assert asked == ["127.0.0.1:20001"]
