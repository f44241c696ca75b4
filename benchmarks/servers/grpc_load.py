"""Load over gRPC, as `post.lua` makes it over HTTP: `grpc_load.py ADDRESS FILE CONNECTIONS SECONDS` calls
ModelInfer with the bytes of a file, over each connection again as soon as its answer is there. Prints one
JSON line.

The message is sent and its answer received as bytes, so that the client costs little beside the server.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

import grpc
import numpy as np

METHOD = "/inference.GRPCInferenceService/ModelInfer"
LARGEST = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


async def main(address: str, file: str, connections: int, seconds: float) -> None:
    """Ask, and print what came of it."""
    message = Path(file).read_bytes()
    waits: list[float] = []
    failed = 0
    started = time.perf_counter()

    async def ask(number: int) -> None:
        nonlocal failed
        options = [*LARGEST, ("grpc.use_local_subchannel_pool", 1), ("client", number)]
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            call = channel.unary_unary(METHOD)
            while (now := time.perf_counter()) < started + seconds:
                try:
                    await call(message, timeout=30)
                except grpc.RpcError:
                    failed += 1
                waits.append(time.perf_counter() - now)

    await asyncio.gather(*map(ask, range(connections)))
    p50, p99, most = np.percentile(np.array(waits) * 1e3, [50, 99, 100]).tolist()
    found = {"requests": len(waits), "s": time.perf_counter() - started, "p50_ms": p50, "p99_ms": p99}
    print(json.dumps({**found, "max_ms": most, "failed": failed}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
