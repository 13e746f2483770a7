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
        app: A script in `apps/`, started with `--core N`, which prints its port; "peer": the app in its
            folder in `peers/`, started with `--port N`; "": there is nothing to start.
        command: What the load asks for.
        what: One line for the report.
        peer: The folder in `peers/` with its pinned requirements; "" for what runs on penstock's own.
        form: How the answers stand on the wire; `load.py` says which there are.
        at: The numbers of connections it is asked with; none: all of the workload's.
        both_cores: Whether it may use the load's core as well, as it is several processes.
    """

    name: str
    app: str
    command: str
    what: str
    peer: str = ""
    form: str = "ndjson"
    at: tuple[int, ...] = ()
    both_cores: bool = False

    def asked_with(self, connections: int) -> bool:
        """Whether it is asked with so many connections."""
        return not self.at or connections in self.at


@dataclass(frozen=True)
class Workload:
    """One group of tables: the same request to each contender, over several numbers of connections.

    Attributes:
        items: Items per stream; 0: an answer that does not stream.
        load: The script that makes the load.
        fresh: Whether each measurement has a server of its own, as memory that was used once is used again.
        calls: Calls that are under way on one connection.
        floor: The contender all others are divided by.
        unit: What ``connections`` counts.
        model: One that it needs, by the name that ``penstock pull`` knows.
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
    unit: str = "connection"
    model: str = ""

    @property
    def units(self) -> str:
        """What ``connections`` counts, if it is not one."""
        noun, space, rest = self.unit.partition(" ")
        return f"{noun}s{space}{rest}"


BARE = Contender("bare", "bare.py", "predict", "bare ASGI app: encodes each token, one write")
SCRIPTED = Contender("penstock_scripted", "penstock_app.py", "predict", "penstock over the scripted engine")
ITEMS = Contender("penstock_items", "penstock_app.py", "items", "penstock over a plain async generator")


def peer(name: str, what: str, *, both_cores: bool = False) -> Contender:
    """Return a peer, which sends the items alone."""
    return Contender(name, "peer", "predict", what, name, form="plain", both_cores=both_cores)


OVER_WEBSOCKET = (
    Contender(
        "bare", "bare_ws.py", "items", "bare ASGI app: sends each token, uvicorn's writes joined to one"
    ),
    Contender("joined", "joined_ws.py", "items", "the limit: messages made by hand, one write"),
    Contender("naive", "naive_ws.py", "items", "Starlette, one message and one write per token", "starlette"),
    SCRIPTED,
    ITEMS,
)

TRIGGERS = {
    "api": "a request to cancel",
    "message": "a message on the WebSocket that asked",
    "rst": "a reset of the connection",
    "fin": "its close",
    "deadline": "the deadline",
}
WORKERS = {
    "async": "the `finally` of a coroutine",
    "sync": "a generator in a thread that waits for its abort callback",
    "sglang": "an SGLang server, which receives the abort",
    "openai": "a server that speaks OpenAI's protocol, whose connection ends",
}
CANCELS = tuple(
    Contender(f"{trigger}_{where}", "cancelling.py", f"{trigger}:{where}", f"from {cause} to {worker}")
    for trigger, cause in TRIGGERS.items()
    for where, worker in WORKERS.items()
)

OVER_HTTP = (
    Workload(
        name="stream-256tok",
        what="NDJSON streams of 256 tokens that are always ready",
        items=256,
        connections=(1, 32, 256, 1000),
        contenders=(
            BARE,
            Contender(
                "naive",
                "naive.py",
                "predict",
                "Starlette, one yield and one write per token",
                "starlette",
                at=(1, 32, 256),
            ),
            SCRIPTED,
            ITEMS,
        ),
    ),
    Workload(
        name="stream-sse",
        what="the same streams as server-sent events",
        items=256,
        connections=(32,),
        contenders=(
            Contender("bare", "bare.py", "predict", "bare ASGI app, as server-sent events", form="sse"),
            Contender("penstock_ndjson", "penstock_app.py", "predict", "penstock, as NDJSON"),
            Contender("penstock_sse", "penstock_app.py", "predict", "penstock, as such events", form="sse"),
        ),
    ),
    Workload(
        name="stream-openai",
        what="the same streams as OpenAI's clients read them",
        items=256,
        connections=(32,),
        contenders=(
            BARE,
            Contender("penstock_ndjson", "penstock_app.py", "predict", "penstock, as NDJSON"),
            Contender(
                "penstock_openai", "penstock_app.py", "chat", "penstock, as OpenAI has it", form="openai"
            ),
        ),
    ),
    Workload(
        name="stream-cumulative",
        what="NDJSON streams of 256 tokens, of which each comes with all the text so far",
        items=256,
        connections=(32,),
        contenders=(
            Contender("bare", "bare.py", "cumulative", "bare ASGI app", form="cumulative"),
            Contender(
                "penstock", "penstock_app.py", "cumulative", "penstock, scripted engine", form="cumulative"
            ),
        ),
    ),
    Workload(
        name="stream-threads",
        what="the streams of `stream-256tok` from a generator that is not async, each in a thread",
        items=256,
        connections=(32,),
        contenders=(
            BARE,
            Contender("penstock_threads", "penstock_app.py", "threads", "penstock: an author's `def`"),
        ),
    ),
    Workload(
        name="first-item",
        what="streams of one token: what it costs that a call begins",
        items=1,
        connections=(1,),
        contenders=(
            Contender("bare", "bare.py", "one", "bare ASGI app: three frames in one write"),
            Contender("penstock_scripted", "penstock_app.py", "one", "penstock over the scripted engine"),
        ),
    ),
    Workload(
        name="unary-add",
        what="one answer per request, `add(a, b)`",
        items=0,
        connections=(1, 32, 256),
        contenders=(
            Contender("bare", "bare.py", "add", "bare ASGI app: decodes, adds, encodes"),
            Contender("naive", "naive.py", "add", "Starlette JSONResponse", "starlette"),
            Contender("penstock_add", "penstock_app.py", "add", "penstock: an author's `async def`"),
        ),
    ),
    Workload(
        name="paced",
        what="NDJSON streams of 50 tokens a second each",
        items=0,
        connections=(500, 2000),
        contenders=(
            Contender(
                "bare", "bare_paced.py", "paced", "bare ASGI app: each token is written when it is due"
            ),
            Contender("penstock", "penstock_paced.py", "paced", "penstock, a scripted engine of this pace"),
        ),
        load="paced.py",
        unit="stream",
    ),
)

PEERS = (
    Workload(
        name="peers",
        what="streams of the same 256 items from other servers, written as their own documentation shows",
        items=256,
        connections=(32,),
        contenders=(
            BARE,
            SCRIPTED,
            peer("starlette", "Starlette on uvicorn, one process"),
            peer("aiohttp", "aiohttp's own server, one process"),
            peer("litserve", "LitServe, a server and a worker, both cores", both_cores=True),
            peer("bentoml", "BentoML, two workers, both cores", both_cores=True),
            peer("ray", "Ray Serve, a proxy and a replica, both cores", both_cores=True),
        ),
        fresh=True,
    ),
)

GATEWAY = Contender(
    "penstock_gateway", "gateway.py", "predict", "the same on a runner behind a gateway", both_cores=True
)

OTHERS = (
    Workload(
        name="gateway",
        what="the streams of `stream-256tok` from a runner, through a gateway: two processes on two cores",
        items=256,
        connections=(1, 32),
        contenders=(BARE, SCRIPTED, GATEWAY),
    ),
    Workload(
        name="gateway-first",
        what="streams of one token, through a gateway",
        items=1,
        connections=(1,),
        contenders=(
            Contender("bare", "bare.py", "one", "bare ASGI app: three frames in one write"),
            Contender("penstock_scripted", "penstock_app.py", "one", "penstock over the scripted engine"),
            Contender(
                "penstock_gateway",
                "gateway.py",
                "one",
                "the same on a runner behind a gateway",
                both_cores=True,
            ),
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
        unit="socket",
    ),
    Workload(
        name="in-process",
        what="the streams of `stream-256tok` without a network, read where they are made",
        items=256,
        connections=(32,),
        contenders=(
            Contender("bare", "", "bare", "the bare ASGI app's frames, encoded and joined"),
            Contender("penstock_frames", "", "frames", "penstock, to the bytes of an HTTP response"),
            Contender("penstock_client", "", "client", "penstock, read item by item by its own client"),
        ),
        load="inprocess.py",
        unit="stream",
    ),
    Workload(
        name="disconnect",
        what="from a client's close to the author's code",
        items=0,
        connections=(0, 1, 50, 500),
        contenders=(
            Contender("silent", "leaving.py", "silent", "the model says nothing"),
            Contender("flood", "leaving.py", "flood", "it says more than the client reads"),
            Contender(
                "busy", "leaving.py", "busy", "silent, while 32 streams take all they can get", at=(0,)
            ),
        ),
        load="disconnect.py",
        unit="request ahead",
    ),
    Workload(
        name="cancel",
        what="from what cancels a call to who does its work",
        items=0,
        connections=(1,),
        contenders=CANCELS,
        load="cancel.py",
        unit="call at a time",
    ),
    Workload(
        name="adapters",
        what="CPU time of engines behind HTTP, above reading the same bytes with the HTTP client alone",
        items=256,
        connections=(1,),
        contenders=(
            Contender("openai", "", "openai", "the engine `openai`, above httpx"),
            Contender("anthropic", "", "anthropic", "the engine `anthropic`, above its vendor's httpx2"),
            Contender(
                "sglang", "", "sglang", "the engine `sglang`, above httpx; each event repeats all before it"
            ),
            Contender("sglang_new", "", "sglang_new", "... and each event has only what is new"),
        ),
        floor="",
        load="adapters.py",
        unit="answer at a time",
    ),
    Workload(
        name="clarifai-link",
        what=(
            "messages of a runner on Clarifai's link (gRPC, `ProcessRunnerItems`) into a gateway, to callers "
            "who read them as frames; 256 of them to an item"
        ),
        items=256,
        connections=(8,),
        contenders=(
            Contender(
                "bare", "bare_grpc.py", "generate", "a bare grpcio stream: reads and parses each message"
            ),
            Contender("penstock", "clarifai_gateway.py", "generate", "penstock's gateway, up to its callers"),
        ),
        load="clarifai_link.py",
        unit="data stream",
    ),
    Workload(
        name="kv-routing",
        what=(
            "from a request to the first token of a real model, through a gateway with two runners: six "
            "tenants with system prompts of 500 tokens, of which each runner holds two"
        ),
        items=0,
        connections=(1,),
        contenders=(
            Contender("prefix", "", "prefix", "to the runner that holds the prompt, weighed against load"),
            Contender("rounds", "", "rounds", "the runners take turns, as the gateway is not told"),
        ),
        floor="rounds",
        load="kv_routing.py",
        unit="caller at a time",
        model="smollm2-135m",
    ),
    Workload(
        name="startup",
        what="from a new process to its end",
        items=0,
        connections=(1,),
        contenders=(
            Contender("python", "", "python", "`python -c pass`"),
            Contender("import", "", "import", "`import penstock`"),
            Contender("help", "", "help", "`penstock --help`"),
        ),
        floor="python",
        load="startup.py",
        unit="process",
    ),
)

WORKLOADS = (*OVER_HTTP, *PEERS, *OTHERS)
