"""Models of other processes that are in this one: the gateway asks them as it asks Serve's handles."""

import pickle
from collections.abc import AsyncGenerator, Mapping
from typing import TypeVar

from raystack.config.serving import Serving
from raystack.serving.endpoint import Endpoint
from raystack.serving.grpc.servicer import SERVICE
from raystack.serving.grpc.services import services
from raystack.serving.rest.response import Response
from raystack.serving.server import Server, Version
from raystack.serving.several.relay import (
    GrpcAsk,
    HttpAsk,
    Said,
    answer_grpc,
    answer_http,
    answer_stream,
)

Thing = TypeVar("Thing")


def sent(thing: Thing) -> Thing:
    """What arrives in another process."""
    arrived: Thing = pickle.loads(pickle.dumps(thing))
    return arrived


async def none(serving: Serving) -> Version:
    """Loads no model for a pool that has none."""
    raise AssertionError(serving)


class Near:
    """A Remote of servers, by the models' names."""

    def __init__(self, servers: Mapping[str, Server]) -> None:
        self.asked: list[str] = []
        self._endpoints = {name: Endpoint(server) for name, server in servers.items()}
        self._rpcs = {
            name: {each.rpc.name: each for each in services(server)[SERVICE]}
            for name, server in servers.items()
        }

    async def http(self, model: str, ask: HttpAsk) -> Response:
        self.asked.append(model)
        return sent(await answer_http(self._endpoints[model], sent(ask)))

    async def grpc(self, model: str, ask: GrpcAsk) -> Said:
        self.asked.append(model)
        return sent(await answer_grpc(self._rpcs[model][ask.rpc], sent(ask)))

    async def stream(self, model: str, ask: GrpcAsk) -> AsyncGenerator[Said, None]:
        self.asked.append(model)
        async for said in answer_stream(self._rpcs[model][ask.rpc], sent(ask)):
            yield sent(said)
