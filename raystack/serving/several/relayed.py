"""What a replica of a model is to the gateway."""

from collections.abc import AsyncIterator

from raystack.serving.front import Application
from raystack.serving.grpc import ingress
from raystack.serving.rest.response import Response
from raystack.serving.several.relay import GrpcAsk, HttpAsk, Said, answer_grpc, answer_http, answer_stream


class Relayed:
    """Methods of a replica that the gateway calls."""

    _application: Application

    async def relay_http(self, ask: HttpAsk) -> Response:
        """Answer a request over HTTP that the gateway got."""
        return await answer_http(self._application, ask)

    async def relay_grpc(self, ask: GrpcAsk) -> Said:
        """Answer a call over gRPC that the gateway got."""
        return await answer_grpc(ingress.answering(ask.rpc), ask)

    async def relay_stream(self, ask: GrpcAsk) -> AsyncIterator[Said]:
        """Answer one request of a stream that the gateway got."""
        async for said in answer_stream(ingress.answering(ask.rpc), ask):
            yield said
