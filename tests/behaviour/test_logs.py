"""What callers say, what models answer, and keys are in no log, at whatever level."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, suppress
from pathlib import Path

import anyio
import pytest
from pydantic import BaseModel

from behaviour.connect import HttpNdjson, Refused, Way
from behaviour.keyring import ANNA, STRANGER, write_keys
from behaviour.promises import promise
from behaviour.raw_http import Connection
from behaviour.seam import Switch, Watched
from behaviour.served import Connect, hosted
from engines.upstreams.anthropic import AnthropicServer
from engines.upstreams.openai import OpenAIServer
from engines.upstreams.sglang import SGLangServer
from penstock import App, CommandError, Runtime, current_call, engines
from penstock.calls.limits import CallLimits
from penstock.calls.log_lines import TALKATIVE, JsonLines, TextLines, quiet_libraries
from penstock.protocol.events import EngineRequest

pytestmark = pytest.mark.anyio

PROMPT = "a prompt that only Canary-Karenina knows: \u00fc\u2713 'quoted' \"twice\"\nand more"
OUTPUT = ("an answer that ", "Canary-Oblomov ", "gives\x1b[31m in pieces")
CANARIES = ("Canary", "anary-K", "Karenina", "Oblomov", "penstock_", "sk-Canary")
PLAIN = logging.Formatter("%(levelname)s %(name)s %(message)s")  # a project may have its own


class Age(BaseModel):
    years: int


class Ear(logging.Handler):
    """Hears every record as it would be written."""

    def __init__(self) -> None:
        super().__init__(0)
        self.heard: list[tuple[logging.LogRecord, str]] = []
        self.forms = (JsonLines(), TextLines(), PLAIN)

    def emit(self, record: logging.LogRecord) -> None:
        self.heard += [(record, form.format(record)) for form in self.forms]

    def texts(self) -> str:
        return "\n".join(text for _, text in self.heard)

    def check(self) -> None:
        """None of it was heard."""
        leaks = [(record.name, text) for record, text in self.heard for word in CANARIES if word in text]
        assert leaks == []

    def told(self, message: str) -> list[dict[str, str]]:
        """Return the records whose message has this."""
        lines = [json.loads(text) for _, text in self.heard if text.startswith('{"time"')]
        return [line for line in lines if message in line["message"]]


@pytest.fixture
def ear(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ear]:
    """Everything is logged that can be, as a project may have it, in a process that penstock has set up."""
    ear, root = Ear(), logging.getLogger()
    names = ("", "penstock", "asyncio", *TALKATIVE)
    before = {name: logging.getLogger(name).level for name in names}
    quiet_libraries()
    root.setLevel(1)
    logging.getLogger("penstock").setLevel(1)
    root.addHandler(ear)
    yield ear
    root.removeHandler(ear)
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


def project() -> Runtime:
    rt = Runtime()

    @rt.command("answer")
    async def answer(prompt: str) -> dict[str, str]:
        current_call().log("at work")
        return {"text": "".join(OUTPUT), "of": prompt}

    @rt.streaming_command("stream")
    async def stream(prompt: str) -> AsyncIterator[str]:
        for piece in OUTPUT:
            yield piece

    @rt.command("quote")
    async def quote(prompt: str) -> None:
        try:
            {}[prompt]
        except KeyError as error:
            raise ValueError(f"nothing can be done with {prompt!r}") from error

    @rt.command("quote_in_thread")
    def quote_in_thread(prompt: str) -> None:
        raise RuntimeError(f"cannot {prompt[10:40]} and so on")

    @rt.command("misfit")
    async def misfit(prompt: str) -> None:
        Age(years=prompt)

    @rt.command("nested")
    async def nested(given: dict[str, list[str]]) -> None:
        raise LookupError(given)

    @rt.streaming_command("quote_itself")
    async def quote_itself(prompt: str) -> AsyncIterator[dict[str, str]]:
        for piece in OUTPUT:
            yield {"chunk": piece}
        raise RuntimeError("it said " + "".join(OUTPUT))

    @rt.command("refuse")
    async def refuse(prompt: str) -> None:
        raise CommandError(f"no: {prompt}")

    @rt.command("nan")
    async def nan(prompt: str) -> dict[str, object]:
        return {"prompt": prompt, "x": float("nan"), "of": OUTPUT}

    @rt.streaming_command("linger")
    async def linger(prompt: str) -> AsyncIterator[str]:
        yield OUTPUT[0]
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError(f"{prompt} is left, and {OUTPUT[0]}")

    return rt


FAILING = ("quote", "quote_in_thread", "misfit", "quote_itself")
REFUSED = (
    ("answer", {"prompt": [PROMPT]}),
    ("answer", {"prompt": "x", "Canary-Karenina": PROMPT}),
    ("answer", {"prompts": PROMPT}),
    ("Canary-Karenina", {"prompt": PROMPT}),
)


@promise("P38")
async def test_neither_what_is_asked_nor_what_is_answered(connect: Connect, ear: Ear) -> None:
    async with connect(project(), limits=CallLimits(cancel_grace_s=0.05)) as way:
        for command in ("answer", "stream", "refuse", "nan"):
            await (await way.open(command, {"prompt": PROMPT})).last()
        for command in FAILING:
            call = await way.open(command, {"prompt": PROMPT})
            assert (await call.last())["status"] == "error"
            check_told(ear, command, call.request_id)
        await (await way.open("nested", {"given": {PROMPT: ["x", PROMPT]}})).last()
        for command, given in REFUSED:
            with pytest.raises(Refused):
                await way.open(command, given)
        await cut(way)
    ear.check()
    assert [line["request_id"] for line in ear.told("at work")]


def check_told(ear: Ear, command: str, request_id: str) -> None:
    """The log says what went wrong, and where, by the call's own id."""
    [line] = [each for each in ear.told("failed") if each.get("command") == command]
    assert line["request_id"] in line["message"]
    assert "Traceback" in line["exception"]
    assert "test_logs.py" in line["exception"]
    assert "…" in line["exception"]
    assert len(request_id) == 32


async def cut(way: Way) -> None:
    """Cancel a call that quotes what it was told while it leaves."""
    call = await way.open("linger", {"prompt": PROMPT})
    if way.streams:
        await call.until("streaming")
    await call.cancel()
    assert (await call.last())["status"] == "cancelled"


@promise("P38")
async def test_nothing_of_what_cannot_be_read(tmp_path: Path, ear: Ear) -> None:
    switch = Switch()
    switch.inner = Watched(App(project()))
    keys = write_keys(tmp_path / "keys.txt", ANNA)
    async with switch.inner.inner, hosted(switch, auth_keys=keys) as (_, address):
        await ask_badly(address, ear)
    ear.check()


async def ask_badly(address: tuple[str, int], ear: Ear) -> None:
    """Put a prompt, and keys, wherever they can be put in a request that comes to nothing."""
    good = {"authorization": f"Bearer {ANNA.token}"}
    word = "Canary-Karenina"
    bodies = (word.encode(), b'{"input": "' + word.encode() + b"\xff", json.dumps([word]).encode(), b"[" * 99)
    bodies += (json.dumps({"command": "answer", "input": {"prompt": word}, "task_id": f"{word} "}).encode(),)
    bodies += (json.dumps({"command": "answer", "input": {"prompt": word}, "timeout": word}).encode(),)
    requests = [("POST", "/v2/execute", body, good) for body in bodies]
    requests += [("POST", path, bodies[0], good) for path in ("/v1/chat/completions", "/predict", "/mcp")]
    requests += [
        ("GET", f"/{word}?key={ANNA.token}", None, good),
        ("GET", f"/tasks?key={ANNA.token}", None, {}),
        ("GET", "/tasks", None, {"authorization": f"Bearer {STRANGER.token}"}),
        ("GET", "/tasks", None, {"authorization": f"Basic {word}"}),
        ("GET", "/tasks", None, {**good, "x-api-key": STRANGER.token}),
        ("GET", "/tasks", None, {**good, "origin": f"https://{word}.example"}),
        ("GET", "/tasks", None, {"x-api-key": ANNA.token, word: "x" * 40_000}),
        (word, "/tasks", None, good),
    ]
    for method, path, body, headers in requests:
        connection = await Connection.open(address)
        connection.request(method, path, body, headers)
        assert (await connection.reply(method)).status >= 400
        await connection.aclose()
    for offered in (f"bearer.{STRANGER.token}", f"penstock, bearer.{ANNA.token}"):
        await talk_badly(address, offered, word)


async def talk_badly(address: tuple[str, int], offered: str, word: str) -> None:
    from server.peer import Peer, frame, message

    async with Peer.open(address, headers=f"sec-websocket-protocol: {offered}\r\n") as peer:
        if peer.status != 101:
            return
        for sent in (
            message(word),
            message("command", command=word, input={"prompt": word}),
            message("command", command="answer", input={"prompt": 3, word: word}),
            message("input", task_id=word, data=word),
            message("cancel", task_id=word),
            frame(1, word.encode()),
            frame(2, word.encode()),
        ):
            peer.write(sent)
            await peer.receive()
        peer.write(frame(1, b"\xff" + word.encode()))
        with suppress(Exception):
            await peer.receive()


# -- what engines are told, and say ----------------------------------------------------------------------

UPSTREAMS = [
    pytest.param(OpenAIServer, "openai://{url}/v1?model=m&key_env=OPENAI_API_KEY", id="openai"),
    pytest.param(AnthropicServer, "anthropic:m", id="anthropic"),
    pytest.param(SGLangServer, "sglang://{url}?model=m&key_env=OPENAI_API_KEY", id="sglang"),
]
TROUBLES = (
    {},
    {
        "status": 400,
        "body": json.dumps({"error": {"message": PROMPT, "type": "x", "param": PROMPT}}).encode(),
    },
    {"status": 500, "body": PROMPT.encode(), "times": 1},
    {"status": 302, "headers": {"location": "/Canary-Karenina"}},
    {"error_after": 1},
    {"cut_after": 1},
    {"junk_after": 1},
)


@promise("P38")
@pytest.mark.parametrize(("kind", "spec"), UPSTREAMS)
async def test_nothing_of_what_goes_to_an_engine_and_comes_from_it(
    kind: type[OpenAIServer], spec: str, ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = kind()
    server.key = "sk-Canary-key"
    async with server.running():
        for name in ("OPENAI", "ANTHROPIC"):
            monkeypatch.setenv(f"{name}_API_KEY", "sk-Canary-key")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        engine = engines.open(spec.format(url=server.url.removeprefix("http://")))
        for trouble in TROUBLES:
            server.faults = type(server.faults)(**trouble)
            asked = EngineRequest(
                request_id="9" * 32,
                trace_id="t",
                model="m",
                messages=({"role": "user", "content": PROMPT},),
                max_tokens=3,
            )
            with suppress(Exception), anyio.fail_after(10):
                async with aclosing(engine.generate(asked)) as events:
                    async for _ in events:
                        pass
        engine.close()
    assert server.seen
    ear.check()


@promise("P38")
async def test_lines_cannot_be_made_up(connect_http: Connect, ear: Ear) -> None:
    forged = "x\n2026-01-01 00:00:00,000 ERROR penstock: made up\r\x1b[2J\u2028{}"
    rt = Runtime()

    @rt.command("fail")
    async def fail(a: int) -> None:
        current_call().log("heard %s", forged)
        raise RuntimeError(forged)

    async with connect_http(rt) as way:
        assert isinstance(way, HttpNdjson)
        await (await way.open("fail", {"a": 1})).last()
    lines = [text for record, text in ear.heard if record.name.startswith("penstock")]
    for text in lines[::3]:
        assert "\n" not in text
        assert json.loads(text)
    for text in lines[1::3]:
        first, *more = text.split("\n")
        assert first[:2] == "20"
        assert all(line.startswith("    ") for line in more)
        assert not set(text) & set("\r\x1b\u2028")
    assert "made up" in "".join(lines)
