"""What is run: contenders (who answers) and workloads (what is asked).  New ones are added here only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Contender:
    """One row of a table.

    Attributes:
        name: What the report calls it.
        app: A script in `apps/`, started with `--core N`; it prints its port.
        command: What the load asks for.
        peer: The folder in `peers/` with its pinned requirements; "" for what runs on penstock's own.
        what: One line for the report.
    """

    name: str
    app: str
    command: str
    what: str
    peer: str = ""


@dataclass(frozen=True)
class Workload:
    """One group of tables: the same request to each contender, over several numbers of connections.

    Attributes:
        items: Items per stream; 0: an answer that does not stream.
        load: The script that makes the load.
        fresh: Whether each measurement has a server of its own, as memory that was used once is used again.
        calls: Calls that are under way on one connection.
        floor: The contender all others are divided by.
    """

    name: str
    what: str
    items: int
    connections: tuple[int, ...]
    contenders: tuple[Contender, ...]
    floor: str = "bare"
    load: str = "load.py"
    fresh: bool = False
    calls: int = 1


OVER_WEBSOCKET = (
    Contender(
        "bare", "bare_ws.py", "items", "bare ASGI app: sends each token, uvicorn's writes joined to one"
    ),
    Contender("joined", "joined_ws.py", "items", "the limit: messages made by hand, one write"),
    Contender("naive", "naive_ws.py", "items", "Starlette, one message and one write per token", "naive"),
    Contender("penstock_scripted", "penstock_app.py", "predict", "penstock over the scripted engine"),
    Contender("penstock_items", "penstock_app.py", "items", "penstock over a plain async generator"),
)

WORKLOADS = (
    Workload(
        name="stream-256tok",
        what="NDJSON streams of 256 tokens that are always ready",
        items=256,
        connections=(1, 32, 256),
        contenders=(
            Contender("bare", "bare.py", "predict", "bare ASGI app: encodes each token, one write"),
            Contender(
                "naive", "naive.py", "predict", "Starlette, one yield and one write per token", "naive"
            ),
            Contender("penstock_scripted", "penstock_app.py", "predict", "penstock over the scripted engine"),
            Contender("penstock_items", "penstock_app.py", "items", "penstock over a plain async generator"),
        ),
    ),
    Workload(
        name="unary-add",
        what="one answer per request, `add(a, b)`",
        items=0,
        connections=(1, 32, 256),
        contenders=(
            Contender("bare", "bare.py", "add", "bare ASGI app: decodes, adds, encodes"),
            Contender("naive", "naive.py", "add", "Starlette JSONResponse", "naive"),
            Contender("penstock_add", "penstock_app.py", "add", "penstock: an author's `async def`"),
        ),
    ),
    Workload(
        name="ws-256tok",
        what="WebSocket streams of 256 tokens that are always ready, one call at a time on each socket",
        items=256,
        connections=(1, 32, 256),
        contenders=OVER_WEBSOCKET,
        load="load_ws.py",
    ),
    Workload(
        name="ws-256calls",
        what="the same streams, 256 calls at a time on one socket",
        items=256,
        connections=(1,),
        contenders=OVER_WEBSOCKET,
        load="load_ws.py",
        calls=256,
    ),
    Workload(
        name="ws-idle",
        what="growth of the server's resident memory per WebSocket on which nothing happens",
        items=0,
        connections=(2000,),
        contenders=(
            Contender("bare", "bare_ws.py", "add", "bare ASGI app on uvicorn's own protocol class"),
            Contender("penstock", "penstock_app.py", "add", "penstock"),
        ),
        load="idle_ws.py",
        fresh=True,
    ),
)
