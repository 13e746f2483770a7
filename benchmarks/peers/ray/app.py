"""Ray Serve, as its documentation streams: a `StreamingResponse`, one yield per token."""

from __future__ import annotations

import argparse
import json
import os
import signal
from collections.abc import AsyncIterator

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import StreamingResponse

TOKENS = 256
STORE_BYTES = 100 * 1024 * 1024  # nothing large is stored
ITEM = {"text": "token ", "chunk": "token ", "finished": False}


@serve.deployment(max_ongoing_requests=1000, logging_config={"enable_access_log": False})
class Items:
    """Says the same tokens to every prompt."""

    async def tokens(self) -> AsyncIterator[str]:
        """Yield the lines of one stream."""
        for _ in range(TOKENS):
            yield json.dumps(ITEM) + "\n"

    async def __call__(self, request: Request) -> StreamingResponse:
        """Answer one request."""
        await request.json()
        return StreamingResponse(self.tokens(), media_type="application/x-ndjson")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0"}
    ray.init(
        num_cpus=2, object_store_memory=STORE_BYTES, include_dashboard=False, _node_ip_address="127.0.0.1"
    )
    serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config={"enable_access_log": False})
    serve.run(Items.bind(), route_prefix="/")
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        signal.pause()
    except KeyboardInterrupt:
        serve.shutdown()
        ray.shutdown()
