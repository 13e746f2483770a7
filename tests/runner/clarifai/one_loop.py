"""One event loop for all tests of a module that use gRPC.

What is left of a call may be told a moment after it has ended.  In a program nothing comes of that; where
each test has a loop of its own, grpc.aio would tell a loop that is closed, and break in the middle of what it
has for the present one.
"""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest

SETTLE = 3


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """As that of all tests, and for a module at once."""
    return "asyncio"


@pytest.fixture(scope="module", autouse=True)
async def one_loop(anyio_backend: str) -> AsyncIterator[None]:
    """Keep the loop until the last test of the module, and until gRPC has told it everything."""
    yield
    gc.collect()
    for _ in range(SETTLE):
        await told()


async def told() -> None:
    """Return when gRPC has told what it had to tell before: it tells of this behind that."""
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        call = channel.stream_stream("/none/None")()
        call.cancel()
        await call.code()
