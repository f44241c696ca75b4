"""The protocol's gRPC service, with Triton's extensions, on the models of a Server."""

from typing import Any

from google.protobuf import json_format

from raystack.errors import Problem
from raystack.serving import description
from raystack.serving.grpc import infer
from raystack.serving.grpc.inference import Inference
from raystack.serving.grpc.messages import Message, message_class
from raystack.serving.grpc.rpc import Caller
from raystack.serving.protocol import RequestError
from raystack.serving.server import Server

SERVICE = "inference.GRPCInferenceService"

_SETTING = {bool: "bool_param", int: "uint32_param", str: "string_param"}
_SHARED = "memory is not shared with clients: send the data in the request, and it is sent in the answer"


class Servicer:
    """The service's RPCs."""

    def __init__(self, server: Server) -> None:
        self._server = server
        inference = Inference(server)
        self.ModelInfer, self.ModelStreamInfer = inference.one, inference.stream

    async def ServerLive(self, request: Message, caller: Caller) -> Message:
        """Answer whether the server runs."""
        return _new("ServerLiveResponse", live=self._server.live)

    async def ServerReady(self, request: Message, caller: Caller) -> Message:
        """Answer whether all models do."""
        return _new("ServerReadyResponse", ready=self._server.ready)

    async def ServerMetadata(self, request: Message, caller: Caller) -> Message:
        """Describe the server."""
        return _new("ServerMetadataResponse", **description.server())

    async def ModelReady(self, request: Message, caller: Caller) -> Message:
        """Answer whether a model does; one that the server does not have does not."""
        try:
            model = self._server.model(request.name)
            ready = model.on_demand or model.version(request.version).ready
        except RequestError:
            ready = False
        return _new("ModelReadyResponse", ready=ready)

    async def ModelMetadata(self, request: Message, caller: Caller) -> Message:
        """Describe a model's inputs and outputs."""
        model = self._server.model(request.name)
        return _new("ModelMetadataResponse", **description.metadata(model, model.version(request.version)))

    async def ModelConfig(self, request: Message, caller: Caller) -> Message:
        """Describe a model as Triton's configuration does."""
        config = description.config(self._server.model(request.name).version(request.version))
        return json_format.ParseDict({"config": config}, _new("ModelConfigResponse"))

    async def ModelStatistics(self, request: Message, caller: Caller) -> Message:
        """Count and time the requests to a version, to all of a model, or to all models."""
        counts = description.statistics(self._server, request.name, request.version)
        return _new("ModelStatisticsResponse", model_stats=counts)

    async def RepositoryIndex(self, request: Message, caller: Caller) -> Message:
        """List the versions that the server has."""
        return _new("RepositoryIndexResponse", models=self._server.index(request.ready))

    async def RepositoryModelLoad(self, request: Message, caller: Caller) -> Message:
        """Load a model, where that is offered."""
        parameters = infer.read_parameters(request.parameters, "request")
        await self._server.load(request.model_name, parameters)
        return _new("RepositoryModelLoadResponse")

    async def RepositoryModelUnload(self, request: Message, caller: Caller) -> Message:
        """Unload a model, where that is offered."""
        parameters = infer.read_parameters(request.parameters, "request")
        await self._server.unload(request.model_name, parameters)
        return _new("RepositoryModelUnloadResponse")

    async def TraceSetting(self, request: Message, caller: Caller) -> Message:
        """Set and return the trace settings of a model, or of the server."""
        if request.model_name:
            self._server.model(request.model_name)
        changes = {name: list(setting.value) or None for name, setting in request.settings.items()}
        settings = {
            name: {"value": value if isinstance(value, list) else [str(value)]}
            for name, value in self._server.trace_settings.update(changes, request.model_name).items()
        }
        return _new("TraceSettingResponse", settings=settings)

    async def LogSettings(self, request: Message, caller: Caller) -> Message:
        """Set and return the log settings."""
        changes = infer.read_parameters(request.settings, "request")
        settings = {
            name: {_SETTING[type(value)]: value}
            for name, value in self._server.log_settings.update(changes).items()
        }
        return _new("LogSettingsResponse", settings=settings)

    async def SystemSharedMemoryStatus(self, request: Message, caller: Caller) -> Message:
        """Refuse, as the other RPCs of shared memory do."""
        raise RequestError(Problem("shared memory", rule=_SHARED), 501)

    SystemSharedMemoryRegister = SystemSharedMemoryUnregister = SystemSharedMemoryStatus
    CudaSharedMemoryStatus = CudaSharedMemoryRegister = CudaSharedMemoryUnregister = SystemSharedMemoryStatus


def _new(kind: str, /, **fields: Any) -> Message:
    return message_class(f"inference.{kind}")(**fields)
