"""What Serve's processes start with."""

import os

import pytest

from raystack.serving.deploy import environment

PER_NODE = "/" + "0" * 56
"""Serve puts a node's id between folder and file."""


def test_the_files_of_haproxy_are_this_users_and_its_sockets_have_short_names() -> None:
    files = {name: path for name, path in environment().items() if path.startswith("/")}
    if not files:
        pytest.skip("there is no HAProxy for this machine")
    assert {name.removeprefix("RAY_SERVE_HAPROXY_") for name in files} == {
        "CONFIG_FILE_LOC",
        "SOCKET_PATH",
        "SERVER_STATE_BASE",
        "SERVER_STATE_FILE",
        "METRICS_SOCKET_PATH",
    }
    assert all(path.split("/")[2].endswith(f"-{os.getuid()}") for path in files.values())
    longest = max(len(path) for name, path in files.items() if "SOCKET" in name)
    assert longest - len(str(os.getuid())) + len("4294967295") + len(PER_NODE) <= 107
