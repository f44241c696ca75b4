"""A request whose client goes away is not worked on further."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from raystack.serving.rest.body import DisconnectedError, Receive

Result = TypeVar("Result")


async def watched(work: Coroutine[Any, Any, Result], receive: Receive) -> Result:
    """Return what `work` returns. Cancel it and raise DisconnectedError if the client goes away before.

    For a request whose body is read, so that nothing but the end of the connection is to be received.
    """
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(receive())
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if not working.done() and gone.result()["type"] == "http.disconnect":
            raise DisconnectedError
        return await working
    finally:
        gone.cancel()
        working.cancel()
