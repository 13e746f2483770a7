"""What an engine's adapter costs above reading the same bytes with the HTTP client below it.

The server (`apps/answers.py`) has core 1 and its answers ready; adapter and client have core 0, and what is
counted is the CPU time of their process.  Answers of many tokens and of one are read in turn, by the adapter
and by the client alone: what more tokens cost is the cost of a token, and the rest that of a call.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from load import WrongAnswer, arguments, tell
from processes import end

from penstock import engines
from penstock.engines.base import Engine
from penstock.protocol.events import EngineDelta, EngineEnd, EngineRequest

APP = Path(__file__).parent / "apps" / "answers.py"
LOAD_CORE = 1

Read = Callable[[int], Awaitable[None]]  # reads an answer of so many tokens


class Kind(NamedTuple):
    """An adapter.

    Attributes:
        spec: Of the engine; ``{}`` is the port.
        path: What it asks for.
        fields: What the client alone sends, without the number of tokens.
        library: The client.
        asks_for: How the request names that number.
        prompt: Of a request that is no chat.
    """

    spec: str
    path: str
    fields: dict[str, Any]
    library: str = "httpx"
    asks_for: str = "max_tokens"
    prompt: str = ""


CHAT = {"model": "played", "messages": [{"role": "user", "content": "go"}], "stream": True}


def sglang(prompt: str) -> Kind:
    """Return SGLang's native route, whose events are as the prompt says."""
    fields = {"rid": "0" * 32, "text": prompt, "stream": True}
    return Kind("sglang://127.0.0.1:{}", "/generate", fields, asks_for="max_new_tokens", prompt=prompt)


KINDS = {
    "openai": Kind("openai://127.0.0.1:{}?model=played", "/v1/chat/completions", CHAT),
    "anthropic": Kind("anthropic://127.0.0.1:{}?model=played", "/v1/messages", CHAT, "httpx2"),
    "sglang": sglang("all of it"),
    "sglang_new": sglang("only what is new"),
}


@contextmanager
def answering() -> Iterator[int]:
    """Run the server; its port."""
    command = [sys.executable, str(APP), "--core", str(LOAD_CORE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        try:
            assert started.stdout is not None
            yield int(json.loads(started.stdout.readline())["port"])
        finally:
            end(started)


def by_client(kind: Kind, http: Any, port: int) -> Read:
    """Return what reads an answer's bytes, and nothing else."""
    url = f"http://127.0.0.1:{port}{kind.path}"

    async def read(tokens: int) -> None:
        size = 0
        async with http.stream("POST", url, json={**kind.fields, kind.asks_for: tokens}) as response:
            async for chunk in response.aiter_raw():
                size += len(chunk)
        if size < tokens * len("token "):
            raise WrongAnswer(f"an answer has {size} bytes")

    return read


def by_adapter(engine: Engine, prompt: str) -> Read:
    """Return what reads an answer's events, to a prompt or in a chat."""
    asked: dict[str, Any] = (
        {"prompt": prompt} if prompt else {"messages": ({"role": "user", "content": "go"},)}
    )

    async def read(tokens: int) -> None:
        name = uuid.uuid4().hex
        request = EngineRequest(request_id=name, trace_id=name, model="played", max_tokens=tokens, **asked)
        said, reason = "", ""
        async for event in engine.generate(request):
            if type(event) is EngineDelta:
                said += event.chunk
            elif type(event) is EngineEnd:
                reason = event.finish_reason
        if (said, reason) != ("token " * tokens, "stop"):
            raise WrongAnswer(f"an answer ends with {reason!r} behind {len(said)} characters")

    return read


async def costs(reads: list[Read], sizes: tuple[int, ...], seconds: float) -> dict[tuple[int, int], float]:
    """Return the CPU seconds that each takes for an answer of each size; they are asked in turn."""
    spent: dict[tuple[int, int], list[float]] = {(at, size): [] for at in range(len(reads)) for size in sizes}
    over = time.monotonic() + seconds
    while time.monotonic() < over:
        for at, size in spent:
            began = time.process_time()
            await reads[at](size)
            spent[at, size].append(time.process_time() - began)
    return {key: median(took) for key, took in spent.items()}


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Read answers for the time that is given."""
    kind = KINDS[args.command]
    limits = {"api_key": "none"} if args.command == "anthropic" else {}
    with answering() as port:
        async with (
            engines.open(kind.spec.format(port), **limits) as engine,
            import_module(kind.library).AsyncClient() as http,
        ):
            reads = [by_client(kind, http, port), by_adapter(engine, kind.prompt)]
            await costs(reads, (1, args.items), args.warm_up)
            gc.collect()
            gc.freeze()
            found = await costs(reads, (1, args.items), args.seconds)
    few, many = ([found[at, size] * 1e6 for at in (0, 1)] for size in (1, args.items))
    client, adapter = ((many[at] - few[at]) / (args.items - 1) for at in (0, 1))
    return {
        "command": args.command,
        "items": args.items,
        "client_us": round(client, 2),
        "adapter_us": round(adapter, 2),
        "above_us": round(adapter - client, 2),
        "call_us": round(few[1] - few[0]),
    }


if __name__ == "__main__":
    tell(measure, arguments(__doc__).parse_args())
