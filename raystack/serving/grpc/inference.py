"""ModelInfer and ModelStreamInfer: from a message, through the Server, to the message of the answer."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from functools import partial
from time import perf_counter

from raystack.serving.grpc import infer
from raystack.serving.grpc.messages import Message, message_class
from raystack.serving.grpc.rpc import Caller, failed, rpcs
from raystack.serving.grpc.stream import Stream, Turn
from raystack.serving.protocol import InferRequest, RequestError
from raystack.serving.protocol.tensors import Array
from raystack.serving.server import Call, Model, Server, Version

LARGE = 256 * 1024
"""Bytes from which a request is read and an answer is written in a thread, so that small ones go on."""
WANTS_FINAL, FINAL = "triton_enable_empty_final_response", "triton_final_response"
"""Parameters of a stream's requests and answers. A request of a model with any number of answers may ask for
an empty one after the last, and each answer says whether it is the last.
"""
RUN = "raystack_run"
"""Parameter of an answer: the run that trained the version."""
STRICT = "triton_grpc_error"
"""Metadata of a stream that should end with the first request that fails, and with its status code."""

_StreamResponse = message_class("inference.ModelStreamInferResponse")


class Inference:
    """Inference on the models of a Server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._rpc = rpcs("inference.GRPCInferenceService")["ModelInfer"]

    async def one(self, message: Message, caller: Caller) -> Message:
        """Answer one request. Raises RequestError."""
        model, version, call = self._addressed(message, caller)
        with version:
            request = await self._read(message, caller.size, model, version, call)
            outputs, version = await self._server.infer(model, version, request, call)
            return await self._write(request, outputs, version)

    def stream(self, bodies: AsyncIterator[bytes], caller: Caller) -> AsyncGenerator[Message, None]:
        """Yield the answers to a stream of requests, in which errors are answers too.

        A model with one answer for each request answers in their order, other models as their answers come.
        """
        return Stream(partial(self._answers, caller), self._server.closing).answers(bodies)

    async def _answers(self, caller: Caller, body: bytes, turn: Turn) -> AsyncGenerator[Message, None]:
        answered = _StreamResponse()
        try:
            message = self._rpc.read(body)
            answered.infer_response.id = message.id
            answered.infer_response.model_name = message.model_name
            answered.infer_response.model_version = message.model_version
            async with aclosing(self._outputs(message, caller._replace(size=len(body)), turn)) as answers:
                async for answer in answers:
                    yield answer
            return
        except RequestError as refused:
            error = refused
        except Exception:
            error = failed("ModelStreamInfer")
        await turn()
        if caller.headers.get(STRICT) == "true":
            raise error
        answered.error_message = str(error)
        answered.infer_response.parameters[FINAL].bool_param = True
        yield answered

    async def _outputs(self, message: Message, caller: Caller, turn: Turn) -> AsyncGenerator[Message, None]:
        model, version, call = self._addressed(message, caller)
        with version:
            assert version.engine is not None
            request = await self._read(message, caller.size, model, version, call)
            if not version.engine.decoupled:
                outputs, version = await self._server.infer(model, version, request, call)
                await turn()
                yield _last(await self._write(request, outputs, version), True)
                return
            async with aclosing(self._server.stream(model, version, request, call)) as answers:
                async for outputs in answers:
                    yield _last(await self._write(request, outputs, version), False)
            if request.parameters.get(WANTS_FINAL):
                yield _last(infer.empty(request.id, version.contract), True)

    def _addressed(self, message: Message, caller: Caller) -> tuple[Model, Version, Call]:
        started = perf_counter()
        timeout_s = None if caller.deadline is None else max(caller.deadline - started, 0.0)
        trace, named = caller.headers.get("traceparent"), bool(message.model_version)
        call = Call("grpc", started, timeout_s, trace, caller.headers, named)
        model = self._server.model(message.model_name)
        return model, model.version(message.model_version), call

    async def _read(
        self, message: Message, size: int, model: Model, version: Version, call: Call
    ) -> InferRequest:
        try:
            model.admission.check()
            began = perf_counter()
            if size < LARGE:
                request = infer.read(message, version.contract)
            else:
                request = await asyncio.to_thread(infer.read, message, version.contract)
            version.statistics.compute_input.spend(perf_counter() - began)
            return request
        except RequestError as refused:
            self._server.refused(call, version, refused)
            raise

    async def _write(self, request: InferRequest, outputs: Mapping[str, Array], version: Version) -> Message:
        began = perf_counter()
        if sum(array.nbytes for array in outputs.values()) < LARGE:
            answer = infer.write(request, outputs, version.contract)
        else:
            answer = await asyncio.to_thread(infer.write, request, outputs, version.contract)
        if self._server.lineage and version.run:
            answer.parameters[RUN].string_param = version.run
        version.statistics.compute_output.spend(perf_counter() - began)
        return answer


def _last(answer: Message, last: bool) -> Message:
    answer.parameters[FINAL].bool_param = last
    return _StreamResponse(infer_response=answer)
