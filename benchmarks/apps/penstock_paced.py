"""penstock with a scripted engine that says 50 tokens a second to each of its callers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import uvloop
from hosting import pin_to_core, say_ready
from pace import GAP_S, Pace

from penstock.calls.limits import CallLimits
from penstock.engines.scripted import ScriptedEngine
from penstock.runtime.app import App
from penstock.runtime.runtime import Runtime
from penstock.server.host import Host
from penstock.server.settings import ServerSettings

CALLS = 4096  # more than are asked for; by default a server takes 1,024 at once

rt = Runtime()


@rt.streaming_command("paced", concurrency=CALLS)
async def paced(tokens: int) -> AsyncIterator[dict[str, Any]]:
    """Say what an engine of this pace says; each call has its own, as each has its own pace."""
    engine = ScriptedEngine(tokens=tokens, delay_s=GAP_S, sleep=Pace())
    async for piece in engine.stream_text("hello", max_tokens=tokens):
        yield {"text": piece, "chunk": piece, "finished": False}


if __name__ == "__main__":
    pin_to_core()
    app = App(rt, limits=CallLimits(in_flight=CALLS))
    host = Host(app, ServerSettings(port=0), lambda url: say_ready(int(url.rpartition(":")[2])))
    uvloop.run(host.serve())
