"""What answers for a server of several models over gRPC: its calls name their model in the message.

A call goes on as the bytes that came: of a prediction only the name is read.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from time import perf_counter

from raystack.serving.grpc.inference import STRICT
from raystack.serving.grpc.messages import Message
from raystack.serving.grpc.rpc import Answering, Caller, Raw, Rpc, rpcs
from raystack.serving.grpc.servicer import SERVICE as INFERENCE
from raystack.serving.grpc.services import services
from raystack.serving.grpc.stream import Stream, Turn
from raystack.serving.protocol import RequestError
from raystack.serving.server import Server
from raystack.serving.several.pool import Pool
from raystack.serving.several.relay import GrpcAsk, Said
from raystack.serving.several.remote import Remote

GATHERED = ("ModelStatistics", "RepositoryIndex")
"""RPCs about all models, of which each process tells its own."""
STREAM, ONE = "ModelStreamInfer", "ModelInfer"


LOADED = (ONE, STREAM, "ModelMetadata", "ModelConfig")
"""RPCs that only a model that is loaded can answer."""


def relaying(server: Server, remote: Remote, pool: Pool) -> Mapping[str, Sequence[Answering]]:
    """Return a server's services that hand on what is for the models of other processes."""
    offered = services(server)
    return {name: [_relaying(each, name, server, remote, pool) for each in offered[name]] for name in offered}


def _relaying(own: Answering, service: str, server: Server, remote: Remote, pool: Pool) -> Answering:
    if service != INFERENCE:
        return own
    relay = Relay(own, server, remote, pool)
    if own.rpc.name == STREAM:
        return own._replace(method=relay.stream)
    if relay.field is None and own.rpc.name not in GATHERED:
        return own
    return own._replace(rpc=own.rpc._replace(request=Raw), method=relay.one)


class Relay:
    """One RPC: answered by this process, or by that of the model that a message names."""

    def __init__(self, own: Answering, server: Server, remote: Remote, pool: Pool) -> None:
        self._own, self._server, self._remote, self._pool = own, server, remote, pool
        fields = own.rpc.request.DESCRIPTOR.fields_by_name
        self.field = fields.get("model_name") or fields.get("name")
        self._first = rpcs(INFERENCE)[ONE].request.DESCRIPTOR.fields_by_name["model_name"]

    async def one(self, raw: Raw, caller: Caller) -> Message:
        """Answer a call that has one answer. Raises RequestError."""
        name = self._model(self._own.rpc, raw.body)
        rpc = self._own.rpc.name
        if name in self._server.elsewhere:
            if rpc == "ModelReady":  # asking would start a model that has no replica
                return self._own.rpc.response(ready=self._server.elsewhere[name].ready)
            return Raw(_body(await self._remote.grpc(name, _ask(rpc, raw.body, caller))))
        async with self._pool.use(name if rpc in LOADED else ""):
            answer = await self._own.method(self._own.rpc.read(raw.body), caller)
        if rpc in GATHERED and not name:
            await self._gather(answer, _ask(rpc, raw.body, caller))
        return answer

    def stream(self, bodies: AsyncIterator[bytes], caller: Caller) -> AsyncGenerator[Message, None]:
        """Yield the answers to a stream of requests, each to any model."""
        return Stream(partial(self._answers, caller), self._server.closing).answers(bodies)

    async def _answers(self, caller: Caller, body: bytes, turn: Turn) -> AsyncGenerator[Message, None]:
        try:
            name = self._model(rpcs(INFERENCE)[ONE], body)
        except RequestError:
            name = ""  # this process says what is wrong with it
        try:
            async with self._pool.use(name), aclosing(self._streamed(name, body, caller)) as answers:
                async for answer in answers:
                    await turn()
                    yield answer
        except RequestError as refused:
            if caller.headers.get(STRICT) == "true":
                raise
            await turn()
            yield self._own.rpc.response(error_message=str(refused))

    async def _streamed(self, name: str, body: bytes, caller: Caller) -> AsyncGenerator[Message, None]:
        if name in self._server.elsewhere:
            async with aclosing(self._remote.stream(name, _ask(STREAM, body, caller))) as others:
                async for said in others:
                    yield Raw(_body(said))
            return
        async with aclosing(self._own.method(_only(body), caller)) as own:
            async for answer in own:
                yield answer

    async def _gather(self, answer: Message, ask: GrpcAsk) -> None:
        for name, model in self._server.elsewhere.items():
            if model.awake:
                said = await self._remote.grpc(name, ask)
                if said.refused is None:
                    answer.MergeFromString(said.body)

    def _model(self, rpc: Rpc, body: bytes) -> str:
        """Return the name in a message, without reading the rest if the name is its first field, as usual."""
        field = self.field or (self._first if rpc.name == ONE else None)
        if field is None:
            return ""
        if field.number == 1 and body[:1] == b"\n" and len(body) > 1 and body[1] < 0x80:
            return body[2 : 2 + body[1]].decode(errors="replace")
        name: str = getattr(rpc.read(body), field.name)
        return name


def _ask(rpc: str, body: bytes, caller: Caller) -> GrpcAsk:
    left = None if caller.deadline is None else max(0.0, caller.deadline - perf_counter())
    return GrpcAsk(rpc, body, dict(caller.headers), left)


def _body(said: Said) -> bytes:
    if said.refused is not None:
        raise said.refused
    return said.body


async def _only(body: bytes) -> AsyncIterator[bytes]:
    yield body
