"""How a served model is asked under load: the request in each form, and the client that sends it."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from running import ROOT

from raystack.serving.grpc.messages import message_class

SERVERS = ROOT / "benchmarks" / "servers"
WAYS = ("json", "binary", "grpc")
"""JSON and binary tensors over HTTP, and gRPC."""


@dataclass(frozen=True)
class Load:
    """A request, sent over so many connections, by each again as soon as it has its answer."""

    way: str
    body: Path
    header_length: int | None = None
    """Bytes of JSON before the binary tensors."""

    def ask(self, url: str, grpc_port: int, connections: int, seconds: float) -> dict[str, float]:
        """Requests, seconds, latencies in ms and failures."""
        if self.way == "grpc":
            load = (str(SERVERS / "grpc_load.py"), f"127.0.0.1:{grpc_port}", str(self.body))
            return _run([sys.executable, *load, str(connections), str(seconds)], {}, seconds)
        threads = str(min(2, connections))
        command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "30s"]
        kind = "application/json" if self.way == "json" else "application/octet-stream"
        variables = {"BODY": str(self.body), "BODY_TYPE": kind}
        if self.header_length is not None:
            variables["HEADER_LENGTH"] = str(self.header_length)
        return _run([*command, "-s", str(SERVERS / "post.lua"), url], variables, seconds)


def write_request(folder: Path, way: str, sample: "np.ndarray[Any, Any]") -> Load:
    """The request for one sample, in a file."""
    file = folder / f"request.{way}"
    tensor: dict[str, Any] = {"name": "x", "shape": list(sample.shape), "datatype": "FP32"}
    raw = sample.astype("<f4").tobytes()
    match way:
        case "json":
            file.write_text(json.dumps({"inputs": [{**tensor, "data": sample.flatten().tolist()}]}))
            return Load(way, file)
        case "binary":
            tensor["parameters"] = {"binary_data_size": len(raw)}
            head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
            file.write_bytes(head + raw)
            return Load(way, file, len(head))
        case _:
            request = message_class("inference.ModelInferRequest")(model_name="model")
            request.inputs.add(name="x", datatype="FP32", shape=sample.shape)
            request.raw_input_contents.append(raw)
            file.write_bytes(request.SerializeToString())
            return Load(way, file)


def _run(command: Sequence[str], variables: dict[str, str], seconds: float) -> dict[str, float]:
    done = subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=seconds + 60
    )
    if done.returncode:
        raise SystemExit(f"{command[0]} ended with status {done.returncode}:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found
