"""A model behind Ray Serve: deployed, asked over HTTP, and refused with its reason where it cannot be
served.
"""

import asyncio
import json
import queue
import re
import shlex
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from raystack import config
from raystack.checkpoint.model import ModelSpec, write_spec
from raystack.checkpoint.weights import write_weights
from raystack.code.archive import pack
from raystack.errors import LaunchError, ServingError
from raystack.outcome import Outcome
from raystack.plan import ServePlan, plan_serving
from raystack.task import Signature, TensorSpec

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

TINY = Path(__file__).parents[1] / "tiny" / "config.yaml"
SERVE_OPTIONS = {
    "health_check_period_s": 4.0,
    "health_check_timeout_s": 5.0,
    "graceful_shutdown_timeout_s": 6.0,
}
CODE = '''
import time
import torch
from torch import nn
from raystack.task import Signature, TensorSpec

class Counter:
    """Answers the sum of x, and which forward pass it was. Large values take it a while."""
    inputs = (TensorSpec("x", "float32", (-1, 4)),)
    signature = Signature(inputs, (TensorSpec("sum", "float32", (-1,)), TensorSpec("passes", "int64", (-1,))))
    passes = 0
    def __init__(self, broken=False): self.broken = broken
    def model(self): return nn.Linear(4, 1)
    def train_data(self): return []
    def eval_data(self): return None
    def loss(self, model, batch): raise NotImplementedError
    def metrics(self, model, batch): return {}
    def predict(self, model, inputs):
        x = inputs["x"]
        if self.broken or bool((x == 13).any()):
            raise ValueError("a bad sample")
        if bool((x >= 1000).any()):
            time.sleep(0.1)
        self.passes += 1
        return {"sum": x.sum(1), "passes": torch.full((len(x),), self.passes)}
'''


def write(folder: Path, **args: Any) -> str:
    import torch

    code, files = folder / "code", folder / "model"
    code.mkdir()
    files.mkdir()
    (code / "counter_task.py").write_text(CODE, encoding="utf-8")
    outputs = (TensorSpec("sum", "float32", (-1,)), TensorSpec("passes", "int64", (-1,)))
    signature = Signature((TensorSpec("x", "float32", (-1, 4)),), outputs)
    card = ModelSpec(
        entry="counter_task:Counter", args=args, signature=signature, run_id="counter-1", step=12, metrics={}
    )
    write_spec(files, card, pack(code))
    write_weights(files, torch.nn.Linear(4, 1).state_dict())
    return str(folder)


@pytest.fixture(scope="module")
def ports() -> tuple[int, int]:
    """HTTP's and gRPC's, for all: Serve keeps the ports it was started with."""
    with socket.socket() as http, socket.socket() as grpc:
        http.bind(("127.0.0.1", 0))
        grpc.bind(("127.0.0.1", 0))
        return http.getsockname()[1], grpc.getsockname()[1]


@pytest.fixture(scope="module")
def port(ports: tuple[int, int]) -> int:
    return ports[0]


@pytest.fixture(scope="module")
def plan_for(ports: tuple[int, int]) -> Callable[..., ServePlan]:
    def plan(model: str, *overrides: str) -> ServePlan:
        place = [f"serving.port={ports[0]}", f"serving.grpc_port={ports[1]}", "serving.name=counter"]
        return plan_serving(config.load(TINY, [f"serving.model={model}", *place, *overrides]))

    return plan


@pytest.fixture(scope="module")
def deployed(
    ray_cluster: str, plan_for: Callable[..., ServePlan], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Outcome]:
    """The counter behind HTTP, in batches of up to 8 samples."""
    from raystack.serving.deploy import deploy, undeploy

    folder = write(tmp_path_factory.mktemp("counter"))
    batching = "serving.batching.max_size=8"
    options = [f"serving.deployment.{name}={value}" for name, value in SERVE_OPTIONS.items()]
    yield deploy(plan_for(folder, batching, *options))
    undeploy("counter")


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (True, "task: the task raised: ValueError: a bad sample; see counter_task.py:21"),
        (None, "there is no such folder"),
    ],
)
def test_a_model_that_cannot_be_served_is_an_error_with_the_reason(
    plan_for: Callable[..., ServePlan], tmp_path: Path, broken: bool | None, reason: str
) -> None:
    """Runs before the counter is deployed: a failed replacement would take its place."""
    from raystack.serving.deploy import deploy

    folder = str(tmp_path / "nothing") if broken is None else write(tmp_path, broken=broken)
    with pytest.raises(ServingError) as raised:
        deploy(plan_for(folder))
    assert reason in str(raised.value)
    assert "\n" not in str(raised.value)


def test_serve_is_given_its_own_options(deployed: Outcome, dashboard: str) -> None:
    token = Path.home() / ".ray/auth_token"
    headers = {"Authorization": f"Bearer {token.read_text().strip()}"} if token.exists() else {}
    answer = httpx.get(f"{dashboard}/api/serve/applications/", headers=headers)
    applications = answer.json()["applications"]
    options = applications["counter"]["deployments"]["model"]["deployment_config"]
    assert {name: options[name] for name in SERVE_OPTIONS} == SERVE_OPTIONS


@pytest.fixture
def url(deployed: Outcome) -> str:
    return deployed.links["url"]


def asked(*rows: Sequence[float], **changes: Any) -> dict[str, Any]:
    return {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [len(rows), 4], "data": list(rows)}],
        **changes,
    }


def values(response: httpx.Response, name: str) -> list[Any]:
    assert response.status_code == 200, response.text
    data: list[Any] = next(output["data"] for output in response.json()["outputs"] if output["name"] == name)
    return data


def test_metadata_is_the_signature(url: str) -> None:
    metadata = httpx.get(url).json()
    assert (metadata["name"], metadata["versions"], metadata["platform"]) == (
        "counter",
        ["12"],
        "raystack_pytorch",
    )
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert httpx.get(f"{url}/versions/12/ready").json() == {"name": "counter", "ready": True}


def test_the_command_that_a_deployment_ends_with_works(deployed: Outcome) -> None:
    curl, silent, address, data, body = shlex.split(deployed.links["try"])
    assert (curl, silent, data) == ("curl", "-s", "-d")
    assert values(httpx.post(address, content=body), "sum") == [0.0]


def test_infer_in_json(url: str) -> None:
    response = httpx.post(f"{url}/infer", json=asked([1, 2, 3, 4], [5, 6, 7, 8], id="r1"))
    assert values(response, "sum") == [10.0, 26.0]
    assert (response.json()["id"], response.json()["model_version"]) == ("r1", "12")


def test_infer_in_binary(url: str) -> None:
    x = np.arange(8, dtype="<f4").reshape(2, 4)
    tensor = {"name": "x", "datatype": "FP32", "shape": [2, 4], "parameters": {"binary_data_size": x.nbytes}}
    head = json.dumps(
        {"inputs": [tensor], "outputs": [{"name": "sum", "parameters": {"binary_data": True}}]}
    ).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    response = httpx.post(f"{url}/infer", content=head + x.tobytes(), headers=headers)
    length = int(response.headers["Inference-Header-Content-Length"])
    assert np.frombuffer(response.content[length:], "<f4").tolist() == [6.0, 22.0]


def together(url: str, *bodies: dict[str, Any]) -> list[httpx.Response]:
    async def send() -> list[httpx.Response]:
        async with httpx.AsyncClient() as client:
            return await asyncio.gather(*(client.post(f"{url}/infer", json=body) for body in bodies))

    return asyncio.run(send())


def test_requests_that_arrive_together_share_a_forward_pass(url: str) -> None:
    rows = [[float(value), 0, 0, 0] for value in range(1000, 1008)]
    responses = together(url, *map(asked, rows))
    assert [values(response, "sum") for response in responses] == [[row[0]] for row in rows]
    assert len({values(response, "passes")[0] for response in responses}) < 8


def test_a_request_larger_than_a_batch_is_answered(url: str) -> None:
    response = httpx.post(f"{url}/infer", json=asked(*([value, 0, 0, 0] for value in range(100, 120))))
    assert values(response, "sum") == [float(value) for value in range(100, 120)]
    assert len(set(values(response, "passes"))) == 3


def test_neighbours_of_a_failure_are_answered(url: str) -> None:
    good, bad, other = together(url, asked([1, 0, 0, 0]), asked([13, 0, 0, 0]), asked([3, 0, 0, 0]))
    assert (good.status_code, bad.status_code, other.status_code) == (200, 500, 200)
    raised = "request: task: the task raised: ValueError: a bad sample; see counter_task.py:21"
    assert re.fullmatch(rf"{raised}; the server's log has more under id \w+", bad.json()["error"])


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("counter/infer", {"inputs": []}, 400, "inputs: the signature also has 'x' (got no inputs)"),
        (
            "counter/infer",
            asked([1, 2, 3]),
            400,
            "input 'x': data is nested as [1, 3], and shape says [1, 4]",
        ),
        (
            "counter/versions/3/infer",
            asked([1, 2, 3, 4]),
            404,
            "model 'counter', version '3': this server has version '12'",
        ),
        ("other/infer", asked([1, 2, 3, 4]), 404, "model 'other': this server has 'counter'"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(
    url: str, path: str, body: dict[str, Any], status: int, message: str
) -> None:
    response = httpx.post(f"{url.removesuffix('counter')}{path}", json=body)
    assert (response.status_code, response.json()) == (status, {"error": message})


def until(true: Callable[[], bool], within_s: float = 120.0) -> None:
    """Wait until `true()`: Ray publishes metrics every ten seconds."""
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(1.0)


def scraped() -> list[tuple[str, dict[str, str], float]]:
    """The numbers at the node's endpoint for Prometheus: name, labels and value."""
    import ray
    from prometheus_client.parser import text_string_to_metric_families

    (node,) = (node for node in ray.nodes() if node["Alive"])
    text = httpx.get(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics").text
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return [(sample.name, sample.labels, sample.value) for sample in samples]


def test_prometheus_has_the_requests_of_each_version(url: str) -> None:
    def number(name: str, **labels: str) -> float:
        found = [
            value
            for each, own, value in scraped()
            if each == f"ray_{name}" and {"application": "counter", **labels}.items() <= own.items()
        ]
        return sum(found)

    for _ in range(5):
        values(httpx.post(f"{url}/infer", json=asked([1, 2, 3, 4])), "sum")
    assert httpx.post(f"{url}/infer", json={"inputs": []}).status_code == 400
    of_version = {"model": "counter", "version": "12", "deployment": "model"}
    until(lambda: number("raystack_requests_total", status="200", protocol="rest", **of_version) >= 5)
    until(lambda: number("raystack_request_errors_total", **of_version, **{"class": "4xx"}) >= 1)
    latency = "raystack_request_latency_seconds"
    answered = number("raystack_requests_total", status="200", **of_version)
    until(lambda: number(f"{latency}_bucket", le="+Inf", **of_version) >= answered)
    assert number(f"{latency}_bucket", le="30.0", **of_version) <= number(f"{latency}_count", **of_version)
    assert number("raystack_ready", **of_version) == 1
    assert number("serve_deployment_request_counter_total", deployment="model") >= 5, "the dashboard's panels"


def sample(*rows: Sequence[float]) -> list[Any]:
    from tritonclient.grpc import InferInput

    tensor = InferInput("x", [len(rows), 4], "FP32")
    tensor.set_data_from_numpy(np.array(rows, np.float32))
    return [tensor]


def test_tritons_client_over_grpc_needs_the_address_alone(deployed: Outcome) -> None:
    from tritonclient.grpc import InferenceServerClient
    from tritonclient.utils import InferenceServerException

    with InferenceServerClient(deployed.links["grpc"]) as client:
        assert client.is_server_ready()
        assert client.get_model_metadata("counter").versions == ["12"]
        answer = client.infer("counter", sample([1, 2, 3, 4], [1, 1, 1, 1]), request_id="r")
        assert answer.as_numpy("sum").tolist() == [10.0, 4.0]
        with pytest.raises(InferenceServerException, match="a bad sample") as failed:
            client.infer("counter", sample([13, 0, 0, 0]))
        assert failed.value.status() == "StatusCode.INTERNAL"

        answers: queue.Queue[Any] = queue.Queue()
        client.start_stream(lambda result, error: answers.put(error or result.as_numpy("sum").item()))
        for at in range(3):
            client.async_stream_infer("counter", sample([at, 0, 0, 0]))
            assert answers.get(timeout=60) == at, "it comes before the stream's next request"
        client.stop_stream()


def test_grpc_is_answered_beneath_serves_request_path(deployed: Outcome) -> None:
    """Serve's own path gives a call a `request_id`. It is taken until HAProxy has seen the replica."""
    import grpc

    until = time.monotonic() + 60
    with grpc.insecure_channel(deployed.links["grpc"]) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        while True:
            with pytest.raises(grpc.RpcError) as refused:
                call(b"\xff")
            assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            if "request_id" not in dict(refused.value.trailing_metadata()):
                return
            assert time.monotonic() < until
            time.sleep(0.2)


def test_a_deployment_of_the_same_name_is_replaced(
    url: str,
    deployed: Outcome,
    plan_for: Callable[..., ServePlan],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from raystack.serving.deploy import deploy

    assert deploy(plan_for(write(tmp_path))).links["url"] == url
    assert values(httpx.post(f"{url}/infer", json=asked([1, 2, 3, 4])), "sum") == [10.0]
    assert capfd.readouterr() == ("", ""), "deploying says nothing on the terminal"


def test_another_port_than_the_one_serve_has_is_refused(
    deployed: Outcome, plan_for: Callable[..., ServePlan], port: int
) -> None:
    from raystack.serving.deploy import deploy

    with pytest.raises(LaunchError, match=f"listens on port {port}"):
        deploy(plan_for("/models/a", f"serving.port={port - 1}"))


def test_another_grpc_port_than_the_one_serve_has_is_refused(
    deployed: Outcome, plan_for: Callable[..., ServePlan], ports: tuple[int, int]
) -> None:
    from raystack.serving.deploy import deploy

    with pytest.raises(LaunchError, match=rf"^serving\.grpc_port: .* listens on port {ports[1]}"):
        deploy(plan_for("/models/a", f"serving.grpc_port={ports[1] - 1}"))


def test_a_second_model_on_the_same_paths_is_refused(
    deployed: Outcome, plan_for: Callable[..., ServePlan]
) -> None:
    from raystack.serving.deploy import deploy

    with pytest.raises(LaunchError, match="already serves 'counter'"):
        deploy(plan_for("/models/a", "serving.name=other"))


def test_more_replicas_than_fit_are_refused(deployed: Outcome, plan_for: Callable[..., ServePlan]) -> None:
    from raystack.serving.deploy import deploy

    with pytest.raises(LaunchError, match="500 replicas that need 500"):
        deploy(plan_for("/models/a", "serving.replicas=500"))


def test_undeploying_what_is_not_served_does_nothing(deployed: Outcome) -> None:
    from raystack.serving.deploy import undeploy

    undeploy("nothing")


def test_the_import_path_builds_an_application(deployed: Outcome) -> None:
    from ray.serve import Application

    from raystack.serving import build

    assert isinstance(build({"model": "/models/a", "name": "a"}), Application)
