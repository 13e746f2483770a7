"""BentoML, as its documentation streams: an `api` that is an async generator, one yield per token."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import bentoml

TOKENS = 256
ITEM = {"text": "token ", "chunk": "token ", "finished": False}


@bentoml.service(workers=2, logging={"access": {"enabled": False}})
class Items:
    """Says the same tokens to every prompt; a worker for each core."""

    @bentoml.api
    async def predict(self, prompt: str) -> AsyncGenerator[str, None]:
        """Yield the lines of one stream."""
        for _ in range(TOKENS):
            yield json.dumps(ITEM) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    os.environ |= {"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(Path(sys.prefix) / "bentoml")}
    serve = ("-m", "bentoml", "serve", "app:Items", "--host", "127.0.0.1", "--port", str(port))
    os.chdir(Path(__file__).parent)
    os.execv(sys.executable, (sys.executable, *serve))
