"""What Triton's client reads and sets over gRPC, beside predictions."""

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from served import Running, a_server, serving
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from raystack import __version__
from raystack.errors import Problem
from raystack.serving.grpc.messages import message_class
from raystack.serving.grpc.probe import is_ready
from raystack.serving.protocol import Contract, RequestError
from raystack.serving.server import Version

SERVICE = "inference.GRPCInferenceService"


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with serving(a_server()) as running:
        yield running


@pytest.fixture
def client(running: Running) -> Iterator[Any]:
    client = InferenceServerClient(running.address)
    yield client
    client.close()


@pytest.fixture
def channel(running: Running) -> Iterator[Any]:
    with grpc.insecure_channel(running.address) as channel:
        yield channel


def refused(call: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as caught:
        call()
    return caught.value.status().removeprefix("StatusCode."), caught.value.message()


def test_the_server_and_its_models_are_live_and_ready(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("sum")
    assert client.is_model_ready("sum", "3")


def test_a_model_or_version_that_is_not_there_is_not_ready(client: Any) -> None:
    assert not client.is_model_ready("none")
    assert not client.is_model_ready("sum", "9")


def test_the_server_names_its_extensions(client: Any) -> None:
    metadata = client.get_server_metadata()
    assert (metadata.name, metadata.version) == ("raystack", __version__)
    assert {"model_repository", "statistics", "trace", "logging"} <= set(metadata.extensions)


def test_metadata_is_the_signature(client: Any) -> None:
    metadata = client.get_model_metadata("sum", as_json=True)
    assert metadata["versions"] == ["3"]
    assert metadata["inputs"] == [
        {"name": "x", "datatype": "FP32", "shape": ["-1", "2"]},
        {"name": "n", "datatype": "INT64", "shape": ["-1", "-1"]},
    ]


def test_config_has_dims_without_the_batch(client: Any) -> None:
    config = client.get_model_config("sum").config
    assert (config.name, config.max_batch_size) == ("sum", 8)
    assert [(each.name, list(each.dims)) for each in config.input] == [("x", [2]), ("n", [-1])]
    assert not config.model_transaction_policy.decoupled
    assert client.get_model_config("counting").config.model_transaction_policy.decoupled


@pytest.mark.parametrize("ask", ["get_model_metadata", "get_model_config", "get_inference_statistics"])
def test_a_model_that_is_not_there_is_not_found(client: Any, ask: str) -> None:
    status, message = refused(lambda: getattr(client, ask)("smu"))
    assert status == "NOT_FOUND"
    assert "did you mean 'sum'?" in message


@pytest.mark.parametrize("ask", ["get_model_metadata", "get_model_config", "get_inference_statistics"])
def test_a_version_that_is_not_there_is_not_found(client: Any, ask: str) -> None:
    status, message = refused(lambda: getattr(client, ask)("sum", "9"))
    assert status == "NOT_FOUND"
    assert "this server has version '3'" in message


def test_statistics_are_of_a_version_of_a_model_or_of_all_models(client: Any) -> None:
    def named(*which: str) -> list[tuple[str, str]]:
        return [(each.name, each.version) for each in client.get_inference_statistics(*which).model_stats]

    assert named() == [(name, "3") for name in ("sum", "slow", "echo", "counting")]
    assert named("sum") == named("sum", "3") == [("sum", "3")]


def test_the_index_lists_every_version_or_those_that_are_ready(running: Running, client: Any) -> None:
    signature = running.server.models["sum"].versions["3"].contract.signature
    coming = Version(Contract("sum", "4", signature), state="loading")
    running.ask(lambda: running.server.models["sum"].versions.update({"4": coming}))
    try:
        listed = {
            (each.name, each.version): each.state for each in client.get_model_repository_index().models
        }
        assert listed["sum", "3"] == "READY"
        assert listed["sum", "4"] == "LOADING"
        assert not client.is_model_ready("sum", "4")
        assert client.is_model_ready("sum")
        status, message = refused(lambda: client.get_model_metadata("sum", "4"))
        assert (status, "is loading" in message) == ("UNAVAILABLE", True)
    finally:
        running.ask(lambda: running.server.models["sum"].versions.pop("4"))


def test_loading_on_request_is_refused_where_it_is_not_offered(client: Any) -> None:
    for call in (client.load_model, client.unload_model):
        status, message = refused(lambda call=call: call("sum"))  # type: ignore[misc]
        assert status == "UNIMPLEMENTED"
        assert "does not load or unload models on request" in message


def test_loading_on_request_is_the_repositorys(running: Running, client: Any) -> None:
    seen = []

    class Repository:
        async def load(self, name: str, parameters: Any) -> None:
            seen.append(("load", name, dict(parameters)))

        async def unload(self, name: str, parameters: Any) -> None:
            raise RequestError(problem, 404)

    problem = Problem("model 'other'", rule="is not there")
    running.server.repository = Repository()
    try:
        client.load_model("sum", config='{"version": "3"}')
        assert seen == [("load", "sum", {"config": '{"version": "3"}'})]
        assert refused(lambda: client.unload_model("other")) == ("NOT_FOUND", "model 'other': is not there")
    finally:
        running.server.repository = None


def test_trace_settings_are_the_servers_or_a_models(client: Any) -> None:
    assert client.get_trace_settings().settings["trace_level"].value == ["OFF"]
    updated = client.update_trace_settings("sum", {"trace_level": ["TIMESTAMPS"], "trace_rate": "5"})
    assert updated.settings["trace_level"].value == ["TIMESTAMPS"]
    assert client.get_trace_settings("sum").settings["trace_rate"].value == ["5"]
    assert client.get_trace_settings().settings["trace_rate"].value == ["1000"]
    assert client.update_trace_settings("sum", {"trace_rate": None}).settings["trace_rate"].value == ["1000"]


def test_log_settings_are_kept(client: Any) -> None:
    assert client.get_log_settings().settings["log_info"].bool_param
    updated = client.update_log_settings({"log_verbose_level": 2, "log_info": False})
    assert updated.settings["log_verbose_level"].uint32_param == 2
    assert not client.get_log_settings().settings["log_info"].bool_param
    assert client.get_log_settings().settings["log_format"].string_param == "default"


def test_settings_that_are_none_are_refused(client: Any) -> None:
    status, message = refused(lambda: client.update_trace_settings(settings={"trace_leve": ["OFF"]}))
    assert (status, "did you mean 'trace_level'?" in message) == ("INVALID_ARGUMENT", True)
    assert refused(lambda: client.update_trace_settings("none", {"trace_rate": "1"}))[0] == "NOT_FOUND"
    assert refused(lambda: client.update_log_settings({"log_format": "loud"}))[0] == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.get_system_shared_memory_status(),
        lambda client: client.register_system_shared_memory("a", "/a", 8),
        lambda client: client.unregister_system_shared_memory("a"),
        lambda client: client.get_cuda_shared_memory_status(),
        lambda client: client.register_cuda_shared_memory("a", b"YQ==", 0, 8),
        lambda client: client.unregister_cuda_shared_memory("a"),
    ],
)
def test_shared_memory_is_refused(client: Any, call: Callable[[Any], Any]) -> None:
    status, message = refused(lambda: call(client))
    assert status == "UNIMPLEMENTED"
    assert "memory is not shared with clients" in message


def checked(channel: Any, service: str) -> str:
    request = message_class("grpc.health.v1.HealthCheckRequest")(service=service)
    response = message_class("grpc.health.v1.HealthCheckResponse")
    answer = channel.unary_unary("/grpc.health.v1.Health/Check")(request.SerializeToString())
    status = response.FromString(answer).status
    return str(response.DESCRIPTOR.enum_types_by_name["ServingStatus"].values_by_number[status].name)


def test_health_is_whether_all_models_answer(running: Running, channel: Any) -> None:
    assert checked(channel, "") == checked(channel, SERVICE) == "SERVING"
    running.server.live = False
    try:
        assert checked(channel, "") == checked(channel, SERVICE) == "NOT_SERVING"
    finally:
        running.server.live = True


def test_health_of_a_service_that_is_not_there_is_not_found(channel: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        checked(channel, "inference.Other")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_health_is_watched(running: Running, channel: Any) -> None:
    response = message_class("grpc.health.v1.HealthCheckResponse")
    watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=20)
    assert response.FromString(next(watch)).status == 1
    running.server.live = False
    try:
        assert response.FromString(next(watch)).status == 2
    finally:
        running.server.live = True
    assert response.FromString(next(watch)).status == 1
    watch.cancel()


def test_reflection_describes_every_service(channel: Any) -> None:
    reflected = ProtoReflectionDescriptorDatabase(channel)
    assert {SERVICE, "grpc.health.v1.Health"} <= set(reflected.get_services())
    pool = DescriptorPool(reflected)
    infer = pool.FindServiceByName(SERVICE).FindMethodByName("ModelInfer")
    assert "raw_input_contents" in infer.input_type.fields_by_name
    assert pool.FindServiceByName("grpc.health.v1.Health").FindMethodByName("Watch").server_streaming


def test_a_server_is_probed(running: Running) -> None:
    assert is_ready(running.address)
    running.server.live = False
    try:
        assert not is_ready(running.address)
    finally:
        running.server.live = True
    assert not is_ready("127.0.0.1:1")
