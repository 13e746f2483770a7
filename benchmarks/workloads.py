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
        floor: The contender all others are divided by.
    """

    name: str
    what: str
    items: int
    connections: tuple[int, ...]
    contenders: tuple[Contender, ...]
    floor: str = "bare"


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
)
