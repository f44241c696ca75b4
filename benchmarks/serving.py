"""One model behind raystack and behind what one would use instead, asked by wrk.

One process of one thread computes, on this machine, which also runs the client. The servers take turns: each
round starts, warms and asks all of them, and the ratio to FastAPI is taken within the round. Servers of
others have a Python of their own, because their requirements differ: `--python mlserver=/path/to/python`;
those without one are left out. Needs `wrk`.
"""

import argparse
import itertools
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from asking import SERVERS, WAYS, Load, write_request
from figures import machine, parse, parser, show, spread, write
from running import ROOT, running, tail, turn, workplace
from servers.network import SIZES, network

from raystack.checkpoint.model import ModelSpec, write_spec
from raystack.checkpoint.weights import write_weights
from raystack.code.archive import pack
from raystack.task import Signature, TensorSpec

BASELINE = "fastapi"
PORT = 8700
"""Port of the first server. Each has its own, so that a leftover is never measured in place of the next."""
PATH = "/v2/models/model/infer"
UP_S = 120.0
"""Seconds that a server may take until it answers."""
BUDGETS = {"fastapi": 1.0, "ray serve": 10.0, "mlserver": 2.0, "litserve": 3.0}
"""How many times as many requests as each raystack should answer, over 16 connections."""


@dataclass(frozen=True)
class Setting:
    """What all servers are given."""

    folder: Path
    model: str
    port: int
    pythons: Mapping[str, str]

    @property
    def grpc_port(self) -> int:
        """Port for gRPC, of the servers that have it."""
        return self.port + 1

    def variables(self) -> dict[str, str]:
        """Where the servers of others find the model."""
        return {
            "MODEL": self.model,
            "WEIGHTS": str(self.folder / "model" / "model.safetensors"),
            "PYTHONPATH": os.pathsep.join(map(str, (SERVERS, ROOT))),
            "OMP_NUM_THREADS": "1",
        }


@dataclass(frozen=True)
class Server:
    """A line of the table."""

    command: Callable[[Setting], Sequence[str]]
    variables: Mapping[str, str]
    own_python: bool = False
    """Whether it needs a Python of its own, `--python`."""
    ways: Sequence[str] = ("json",)
    """How it can be asked."""


def _raystack(setting: Setting) -> Sequence[str]:
    return (
        sys.executable, "-m", "raystack.serve", str(SERVERS / "config.yaml"),
        f"serving.model={setting.folder / 'model'}", "serving.name=model", f"serving.port={setting.port}",
        f"serving.grpc_port={setting.grpc_port}",
        f"experiment.storage={setting.folder / 'storage'}", "tracking=off",
    )  # fmt: skip


def _fastapi(setting: Setting) -> Sequence[str]:
    return (
        sys.executable, "-m", "uvicorn", "fastapi_app:app", "--app-dir", str(SERVERS),
        "--port", str(setting.port), "--no-access-log",
    )  # fmt: skip


def _ray_serve(setting: Setting) -> Sequence[str]:
    start = (
        "from ray import serve; from serve_app import app;"
        f"serve.start(http_options={{'port': {setting.port}}}); serve.run(app, blocking=True)"
    )
    return (sys.executable, "-c", start)


def _mlserver(setting: Setting) -> Sequence[str]:
    folder = setting.folder / "mlserver"
    folder.mkdir(exist_ok=True)
    ports = {"http_port": setting.port, "grpc_port": setting.grpc_port, "metrics_port": setting.port + 2}
    settings = {**ports, "parallel_workers": 0, "debug": False}
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    model = {"name": "model", "implementation": "mlserver_model.Model"}
    (folder / "model-settings.json").write_text(json.dumps(model), encoding="utf-8")
    return (setting.pythons["mlserver"], "-m", "mlserver.cli.main", "start", str(folder))


def _litserve(setting: Setting) -> Sequence[str]:
    return (setting.pythons["litserve"], str(SERVERS / "litserve_app.py"), str(setting.port))


def _bentoml(setting: Setting) -> Sequence[str]:
    return (
        setting.pythons["bentoml"], "-m", "bentoml", "serve", "bento_app:Model",
        "--working-dir", str(SERVERS), "--port", str(setting.port),
    )  # fmt: skip


SERVED: dict[str, Server] = {
    "raystack": Server(_raystack, {}, ways=WAYS),
    BASELINE: Server(_fastapi, {}),
    "ray serve": Server(_ray_serve, {}),
    "ray serve fast": Server(
        _ray_serve, {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
    ),
    "mlserver": Server(_mlserver, {}, own_python=True, ways=("json", "grpc")),
    "litserve": Server(_litserve, {}, own_python=True),
    "bentoml": Server(_bentoml, {}, own_python=True),
}


def main() -> int:
    """Measure, print the table, write the JSON."""
    arguments = _parse()
    if arguments.way != "grpc" and shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: apt-get install wrk")
    rounds, count = [], itertools.count()
    with workplace() as folder:
        sample = _prepare(folder, arguments.model)
        check, load = write_request(folder, "json", sample), write_request(folder, arguments.way, sample)
        pythons = dict(pair.split("=", 1) for pair in arguments.python)
        for number in range(arguments.rounds):
            done = {
                name: _measure(
                    name,
                    Setting(folder, arguments.model, PORT + 10 * next(count), pythons),
                    check.body,
                    load,
                    arguments,
                )
                for name in turn(arguments.only, number)
            }
            rounds.append({name: done[name] for name in arguments.only})
    results = _results(rounds, arguments)
    _show(results)
    if arguments.output:
        write(arguments.output, results)
    return 0


def _parse() -> argparse.Namespace:
    options = parser(__doc__, "serving", "one short round of raystack and FastAPI")
    options.add_argument("--rounds", type=int, help="how often each server is started and asked")
    options.add_argument("--seconds", type=float, help="of each load")
    options.add_argument("--connections", type=int, nargs="+", help="of wrk, one load each")
    options.add_argument("--model", choices=list(SIZES), default="mlp")
    options.add_argument("--way", choices=WAYS, default="json", help="how the servers that can are asked")
    options.add_argument("--only", nargs="+", choices=list(SERVED), help="the servers, all that there are")
    options.add_argument(
        "--python", nargs="+", default=[], metavar="SERVER=PATH", help="of a server of others"
    )
    full = {"rounds": 3, "seconds": 6.0, "connections": [1, 16, 64], "only": list(SERVED)}
    quick = {"rounds": 1, "seconds": 1.0, "connections": [4], "only": ["raystack", BASELINE]}
    arguments = parse(options, "serving", full, quick)
    there = {pair.partition("=")[0] for pair in arguments.python}
    arguments.only = [
        name
        for name in arguments.only
        if (name in there or not SERVED[name].own_python) and arguments.way in SERVED[name].ways
    ]
    return arguments


def _prepare(folder: Path, name: str) -> "np.ndarray[Any, Any]":
    """Write the model's folder; returns a sample."""
    torch.manual_seed(0)
    sample = torch.randn(1, *SIZES[name])
    signature = Signature(
        (TensorSpec("x", "float32", (-1, *SIZES[name])),), (TensorSpec("y", "float32", (-1, 10)),)
    )
    card = ModelSpec("task:Served", {"name": name}, signature, run_id="served", step=1, metrics={})
    (folder / "model").mkdir()
    write_spec(folder / "model", card, pack(SERVERS))
    write_weights(folder / "model", network(name).state_dict())
    return sample.numpy()


def _measure(
    name: str, setting: Setting, body: Path, load: Load, arguments: argparse.Namespace
) -> dict[str, Any]:
    server = SERVED[name]
    place = setting.folder / "server"
    place.mkdir(exist_ok=True)
    url = f"http://127.0.0.1:{setting.port}{PATH}"
    _refuse_taken(setting.port)
    started = time.monotonic()
    with running(server.command(setting), place, {**setting.variables(), **server.variables}) as process:
        values = _until_up(name, url, body, process, place)
        up_s = time.monotonic() - started
        load.ask(url, setting.grpc_port, 16, min(2.0, arguments.seconds))
        loads = {}
        for connections in arguments.connections:
            found = load.ask(url, setting.grpc_port, connections, arguments.seconds)
            loads[connections] = {**found, "per_s": (found["requests"] - found["failed"]) / found["s"]}
            print(f"{name}, {connections} connections: {loads[connections]['per_s']:.0f}/s", flush=True)
    return {"up_s": up_s, "loads": loads, "outputs": values}


def _refuse_taken(port: int) -> None:
    """SystemExit if something listens already, which would be asked instead."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise SystemExit(f"port {port} is in use: stop what listens there")


def _until_up(
    name: str, url: str, body: Path, process: "subprocess.Popen[bytes]", place: Path
) -> list[float]:
    """Wait until the server answers; returns its outputs."""
    deadline = time.monotonic() + UP_S
    request = urllib.request.Request(url, body.read_bytes(), {"Content-Type": "application/json"})
    while True:
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                answer = json.load(response)
            return [float(value) for value in np.ravel(answer["outputs"][0]["data"])]
        except (OSError, urllib.error.URLError, json.JSONDecodeError) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{name} does not answer ({error}):\n{tail(place)}") from None
            time.sleep(0.1)


def _results(rounds: Sequence[Mapping[str, Any]], arguments: argparse.Namespace) -> dict[str, Any]:
    reference = rounds[0][arguments.only[0]]["outputs"]
    for done in rounds:
        for name, found in done.items():
            if not np.allclose(found["outputs"], reference, rtol=1e-4, atol=1e-5):
                raise SystemExit(f"{name} answers {found['outputs']}, {arguments.only[0]} {reference}")
    table = {}
    for name in arguments.only:
        loads = {
            str(connections): {
                key: spread([done[name]["loads"][connections][key] for done in rounds])
                for key in ("per_s", "p50_ms", "p99_ms", "failed")
            }
            for connections in arguments.connections
        }
        table[name] = {"up_s": spread([done[name]["up_s"] for done in rounds]), "loads": loads}
    return {
        "benchmark": "serving",
        "machine": machine("ray", "torch", "fastapi", "uvicorn"),
        "settings": {key: getattr(arguments, key) for key in ("model", "way", "rounds", "seconds")},
        "servers": table,
        "ratios": _ratios(rounds, arguments),
    }


def _ratios(rounds: Sequence[Mapping[str, Any]], arguments: argparse.Namespace) -> dict[str, Any]:
    """Requests of raystack in a second, as a multiple of each other server's, within the rounds."""
    if "raystack" not in arguments.only:
        return {}
    return {
        name: {
            str(connections): spread(
                [
                    done["raystack"]["loads"][connections]["per_s"]
                    / done[name]["loads"][connections]["per_s"]
                    for done in rounds
                ]
            )
            for connections in arguments.connections
        }
        for name in arguments.only
        if name != "raystack"
    }


def _show(results: Mapping[str, Any]) -> None:
    columns = [
        "server",
        "connections",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "failed",
        "raystack is",
        "at 16 asked",
    ]
    rows = []
    for name, found in results["servers"].items():
        for connections, load in found["loads"].items():
            ratio = results["ratios"].get(name, {}).get(connections)
            rows.append(
                [
                    name,
                    connections,
                    f"{load['per_s']['median']:,.0f}",
                    f"{load['p50_ms']['median']:.2f}",
                    f"{load['p99_ms']['median']:.2f}",
                    f"{load['failed']['max']:.0f}",
                    f"{ratio['median']:.2f} x ({ratio['min']:.2f} to {ratio['max']:.2f})" if ratio else "",
                    f"{BUDGETS[name]:g} x" if name in BUDGETS and connections == "16" else "",
                ]
            )
    title = "{model}, {way}, {rounds} rounds of {seconds:g} s".format_map(results["settings"])
    show(title, columns, rows)
    ups = [
        [name, f"{statistics.median([found['up_s']['median']]):.1f}"]
        for name, found in results["servers"].items()
    ]
    show("seconds from the command to the first answer", ["server", "s"], ups)


if __name__ == "__main__":
    sys.exit(main())
