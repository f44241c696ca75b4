"""HAProxy as raystack starts it: one port, the protocol's errors, and the same end as who started it."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fronting import free_port, listens, until, written

from raystack.ray_internals import serve as internals
from raystack.ray_internals.haproxy import changed, write_launcher

pytestmark = pytest.mark.skipif(internals.haproxy() is None, reason="there is no HAProxy for this machine")

STARTER = """
import subprocess, sys, time
print(subprocess.Popen(sys.argv[1:]).pid, flush=True)
time.sleep(600)
"""
LONGEST_S = 30.0


@pytest.fixture
def config(tmp_path: Path) -> tuple[Path, int]:
    """A config as Ray writes it, with one replica that is not there, and the port."""
    from ray.serve._private.haproxy import BackendConfig, ServerConfig

    replica = ServerConfig(name="gone", host="127.0.0.1", port=free_port())
    backend = BackendConfig(name="http-a", path_prefix="/", app_name="a", servers=[replica])
    return written(tmp_path, [backend])


@pytest.fixture
def config_of_several(tmp_path: Path) -> Path:
    """A config as Ray writes it for two models and the application that answers for the server."""
    from ray.serve._private.common import RequestProtocol
    from ray.serve._private.haproxy import BackendConfig, ServerConfig

    routes = {"a": "/v2/models/a", "a.b": "/v2/models/a.b", "_server": "/"}
    backends = [
        BackendConfig(
            name=f"{protocol.value.lower()}-{name}",
            path_prefix=route,
            app_name=name,
            servers=[ServerConfig(name="gone", host="127.0.0.1", port=free_port())],
            protocol=protocol,
        )
        for name, route in routes.items()
        for protocol in (RequestProtocol.HTTP, RequestProtocol.GRPC)
    ]
    return written(tmp_path, backends, grpc=True)[0]


@pytest.fixture
def running(config: tuple[Path, int], tmp_path: Path) -> Iterator[tuple["subprocess.Popen[str]", int, int]]:
    """The process that has started it, its own id, and the port."""
    file, port = config
    binary = internals.haproxy()
    assert binary is not None
    launcher = tmp_path / "haproxy"
    write_launcher(launcher, binary, request_s=1.0)
    words = [sys.executable, "-c", STARTER, str(launcher), "-db", "-f", str(file), "-dR"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    starter = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)
    assert starter.stdout is not None
    own = int(starter.stdout.readline())
    until(lambda: listens(port))
    yield starter, own, port
    starter.kill()
    starter.wait()
    starter.stdout.close()


def test_where_no_replica_answers_the_error_is_the_protocols(
    running: tuple["subprocess.Popen[str]", int, int],
) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", running[2], timeout=LONGEST_S)) as connection:
        connection.request("POST", "/v2/models/a/infer", b"{}")
        answer = connection.getresponse()
        body = answer.read()
    assert answer.status == 503
    assert json.loads(body) == {"error": "replica: none is ready; try again later"}
    assert (answer.headers["Content-Type"], answer.headers["Retry-After"]) == ("application/json", "1")


def test_a_request_that_does_not_come_is_refused_in_time(
    running: tuple["subprocess.Popen[str]", int, int],
) -> None:
    with socket.create_connection(("127.0.0.1", running[2]), timeout=LONGEST_S) as client:
        client.sendall(b"POST /v2/models/a/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{")
        with client.makefile("rb") as answer:
            head, _, body = answer.read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert json.loads(body) == {"error": "request: did not arrive in time"}


def test_it_listens_on_the_models_port_alone(running: tuple["subprocess.Popen[str]", int, int]) -> None:
    _, own, port = running
    inodes = {os.readlink(link) for link in Path(f"/proc/{own}/fd").iterdir() if link.is_symlink()}
    tables = [Path("/proc/net", name).read_text() for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table.splitlines()[1:]]
    listening = [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes]
    assert {address.rpartition(":")[2] for address in listening} == {f"{port:04X}"}


def test_it_ends_with_who_started_it(running: tuple["subprocess.Popen[str]", int, int]) -> None:
    starter, own, port = running
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    until(lambda: not Path(f"/proc/{own}").exists() and not listens(port))


def test_side_ports_that_were_asked_for_are_on_the_loopback_interface(config: tuple[Path, int]) -> None:
    file, _ = config
    asked = {"RAY_SERVE_HAPROXY_STATS_PORT": "18404", "RAY_SERVE_HAPROXY_METRICS_PORT": "19101"}
    text = changed(file.read_text(), file.parent, "1000", asked)
    assert "bind 127.0.0.1:18404\n" in text
    assert "bind 127.0.0.1:19101\n" in text
    assert changed(text, file.parent, "1000", asked).count("errorfile 503") == 1


def test_of_several_models_each_gets_its_requests(config_of_several: Path) -> None:
    """Of both versions of the protocol; calls over gRPC go to the application that can read them."""
    text = changed(config_of_several.read_text(), config_of_several.parent, "1000", {})
    rules = [line.split() for line in text.splitlines() if " is_http-" in line]
    found = {name: [rule[2:] for rule in rules if rule[1] == f"is_http-{name}"] for name in ("a", "a.b")}
    for name, own in found.items():
        beginnings = [path for kind, *paths in own if kind == "path_beg" for path in paths]
        assert beginnings == [f"/v2/models/{name}/", f"/v1/models/{name}:", f"/v1/models/{name}/"]
        assert [path for kind, *paths in own if kind == "path" for path in paths] == [
            f"/v2/models/{name}",
            f"/v1/models/{name}",
        ]
    assert "default_backend grpc-_server\n" in text
    assert text.partition("backend grpc-_server\n")[2].count("set-header application _server\n") == 1
    config_of_several.write_text(text)
    for status in (408, 502, 503, 504):
        (config_of_several.parent / f"error-{status}.http").write_text("HTTP/1.1 503 No\r\n\r\n")
    binary = internals.haproxy()
    assert binary is not None
    checked = subprocess.run([binary, "-c", "-f", str(config_of_several)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
