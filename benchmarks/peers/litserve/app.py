"""LitServe, as its documentation streams: `predict` yields a token, `encode_response` yields its line."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

import litserve as ls

TOKENS = 256
ITEM = {"text": "token ", "chunk": "token ", "finished": False}


class Items(ls.LitAPI):
    """Says the same tokens to every prompt."""

    def setup(self, device: str) -> None:
        """Load no model."""

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # LitServe reads types as a body's fields
        """Read a request."""
        return request["prompt"]

    def predict(self, prompt: str) -> Iterator[dict[str, Any]]:
        """Yield the tokens of one stream."""
        for _ in range(TOKENS):
            yield ITEM

    def encode_response(self, outputs: Iterator[dict[str, Any]]) -> Iterator[str]:
        """Yield their lines."""
        for item in outputs:
            yield json.dumps(item) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    server = ls.LitServer(Items(stream=True), accelerator="cpu")
    server.run(host="127.0.0.1", port=port, log_level="warning", access_log=False, generate_client_file=False)
