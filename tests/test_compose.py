"""Projects and engines become apps."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import msgspec
import pytest

from penstock import AsyncClient, AuthoringError, CallError, ErrorCode, Runtime
from penstock.compose import STREAMING_MODE, build_app
from penstock.engine_commands import serve_engine
from penstock.engines.scripted import ScriptedEngine
from penstock.protocol.events import UNBOUNDED, EngineDelta, EngineEnd, EngineEvent, EngineRequest
from penstock.protocol.inference import Request, parse_stream_event
from penstock.runtime.app import App
from penstock.server.settings import ServerSettings

pytestmark = pytest.mark.anyio

REQUEST = Request(request_id="theirs", trace_id="trace", model="m", prompt="Say", max_tokens=64, stream=True)


@pytest.fixture(autouse=True)
def _own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what serving a project does to the process."""
    monkeypatch.setenv(STREAMING_MODE, "")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))


def project(folder: Path, code: str, manifest: str = "") -> Path:
    (folder / "manifest.yml").write_text(f"name: tiny\nversion: 1.2.3\nentrypoint: run.py\n{manifest}")
    (folder / "run.py").write_text(f"from penstock import Runtime\nrt = Runtime('manifest.yml')\n{code}")
    return folder


def build(where: Path | None, engine: str | None = None) -> App:
    return build_app(where, engine, ServerSettings(drain_s=7))


async def items(app: App, command: str, **inputs: Any) -> list[Any]:
    async with AsyncClient(app) as client, client.stream(command, inputs) as stream:
        return [item async for item in stream]


def app_of(engine: ScriptedEngine) -> App:
    rt = Runtime()
    serve_engine(rt, engine)
    return App(rt)


# -- an engine with no code ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "inputs"),
    [
        ("predict", {"prompt": "Say", "system_prompt": "Be brief", "temperature": 0, "top_p": 0.9}),
        ("chat", {"messages": [{"role": "user", "content": "Say"}]}),
    ],
)
async def test_text_grows_piece_by_piece(command: str, inputs: dict[str, Any]) -> None:
    async with app_of(ScriptedEngine("one two three")) as app:
        assert await items(app, command, **inputs) == [
            {"text": "one", "chunk": "one", "finished": False},
            {"text": "one two", "chunk": " two", "finished": False},
            {"text": "one two three", "chunk": " three", "finished": False},
            {"text": "one two three", "chunk": "", "finished": True},
        ]


@pytest.mark.parametrize(("sampling", "said"), [({"max_tokens": 1}, "one"), ({"stop": " three"}, "one two")])
async def test_sampling_reaches_the_engine(sampling: dict[str, Any], said: str) -> None:
    async with app_of(ScriptedEngine("one two three")) as app:
        assert (await items(app, "predict", prompt="Say", **sampling))[-1]["text"] == said


@pytest.mark.parametrize(
    ("command", "inputs", "named"),
    [
        ("predict", {"prompt": "Say", "temperature": 2.5}, "temperature"),
        ("predict", {"prompt": "Say", "max_tokens": 0}, "max_tokens"),
        ("chat", {"messages": []}, "messages"),
        ("chat", {"messages": [{"role": "nobody", "content": ""}]}, "role"),
        ("generate", {"request": {}}, "trace_id"),
    ],
)
async def test_bad_inputs_are_refused_at_admission(command: str, inputs: dict[str, Any], named: str) -> None:
    engine = ScriptedEngine("one")
    async with app_of(engine) as app, AsyncClient(app) as client:
        with pytest.raises(CallError, match=named) as caught:
            await client.run(command, inputs)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    assert engine.started == 0


async def test_generate_gives_the_typed_events_under_our_request_id() -> None:
    async with (
        app_of(ScriptedEngine("one two")) as app,
        AsyncClient(app) as client,
        client.stream("generate", request=REQUEST) as stream,
    ):
        events = [parse_stream_event(item) async for item in stream]
    assert [event.event for event in events] == ["start", "delta", "delta", "end"]
    assert {(event.request_id, event.trace_id) for event in events} == {(stream.request_id, "trace")}
    assert stream.metrics["kv_used_tokens"] > 0


@pytest.mark.parametrize(("fault", "last"), [("fail", "end"), ("cut", "delta")])
async def test_a_generation_that_breaks_off_is_no_success(fault: Any, last: str) -> None:
    async with (
        app_of(ScriptedEngine("one two", fault=fault, after=1)) as app,
        AsyncClient(app) as client,
        client.stream("generate", request=REQUEST) as stream,
    ):
        *_, item, end = [frame async for frame in stream.frames()]
    assert item.data["event"] == last
    assert (end.status, end.code) == ("error", "upstream_failed")


class Thinking(ScriptedEngine):
    """Thinks, then calls a tool, and says the script; keeps what it was asked."""

    asked: EngineRequest

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        self.asked = request
        plain = msgspec.structs.replace(request, tools=None, response_format=None)
        async with aclosing(super().generate(plain)) as events:
            async for event in events:
                if type(event) is EngineEnd:
                    ids = {name: getattr(event, name) for name in ("request_id", "trace_id", "engine_id")}
                    yield EngineDelta(**ids, chunk="", chunk_tokens=[], reasoning="hm")
                    yield EngineDelta(**ids, chunk="", chunk_tokens=[], tool_calls=[CALLED])
                    yield EngineDelta(**ids, chunk="", chunk_tokens=[])
                yield event


CALLED = {"index": 0, "id": "a", "function": {"name": "clock", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}


async def test_thoughts_and_calls_of_tools_stand_beside_the_text_only_where_they_come() -> None:
    async with app_of(Thinking("one")) as app:
        got = await items(app, "predict", prompt="Go")
    assert got == [
        {"text": "one", "chunk": "one", "finished": False},
        {"text": "one", "chunk": "", "finished": False, "reasoning": "hm"},
        {"text": "one", "chunk": "", "finished": False, "tool_calls": [CALLED]},
        {"text": "one", "chunk": "", "finished": True},
    ]


async def test_a_chat_goes_on_until_the_model_ends_it_and_other_answers_are_cut_off() -> None:
    engine = Thinking("one")
    async with app_of(engine) as app:
        await items(app, "chat", messages=[{"role": "user", "content": "Say"}])
        assert engine.asked.max_tokens == UNBOUNDED
        await items(app, "predict", prompt="Say")
        assert engine.asked.max_tokens == 256


async def test_a_chat_takes_tools_their_results_and_a_form_of_the_answer() -> None:
    engine = Thinking("one")
    turns = [
        {"role": "user", "content": "What time is it?"},
        {"role": "assistant", "content": None, "tool_calls": [CALLED]},
        {"role": "tool", "tool_call_id": "a", "content": "noon"},
    ]
    form = {"type": "json_object"}
    async with app_of(engine) as app:
        await items(app, "chat", messages=turns, tools=[TOOL], response_format=form)
    assert engine.asked.tools == (TOOL,)
    assert engine.asked.response_format == form
    assert engine.asked.messages == (
        turns[0],
        {"role": "assistant", "tool_calls": [CALLED]},
        turns[2],
    )


@pytest.mark.parametrize("asked", [{"tools": [TOOL]}, {"response_format": {"type": "json_object"}}])
async def test_an_engine_that_has_no_tools_says_so(asked: dict[str, Any]) -> None:
    async with app_of(ScriptedEngine("one")) as app:
        with pytest.raises(CallError, match="leave them out") as caught:
            await items(app, "chat", messages=[{"role": "user", "content": "Go"}], **asked)
    assert caught.value.code is ErrorCode.NOT_IMPLEMENTED


async def test_a_message_that_says_nothing_is_refused() -> None:
    async with app_of(ScriptedEngine("one")) as app:
        with pytest.raises(CallError, match="unless the message calls tools") as caught:
            await items(app, "chat", messages=[{"role": "assistant"}])
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT


async def test_commands_show_what_they_take_and_give() -> None:
    async with app_of(ScriptedEngine("one")) as app:
        shown = (await app.describe()).commands
    assert all(command.streaming for command in shown.values())
    assert set(shown["predict"].input_schema["properties"]) == {
        "prompt",
        "system_prompt",
        "max_tokens",
        "temperature",
        "top_p",
        "stop",
    }
    item = shown["chat"].item_schema
    assert set(item["properties"]) == {"text", "chunk", "finished", "reasoning", "tool_calls"}
    assert set(item["required"]) == {"text", "chunk", "finished"}
    assert shown["generate"].item_schema["discriminator"]["propertyName"] == "event"


async def test_as_many_calls_run_as_the_engine_takes() -> None:
    rt = Runtime()
    serve_engine(rt, ScriptedEngine("one", capacity=3))
    assert {command.concurrency for command in rt.commands.values()} == {3}


# -- projects --------------------------------------------------------------------------------------------


async def test_a_project_is_imported_in_streaming_mode(tmp_path: Path) -> None:
    code = f"import os\nseen = os.environ[{STREAMING_MODE!r}]\nrt.command('mode')(lambda: seen)\n"
    async with build(project(tmp_path, code)) as app, AsyncClient(app) as client:
        assert await client.run("mode") == "true"
        assert os.environ[STREAMING_MODE] == "true"
        assert (app.manifest.name, app.commands[0], app.limits.drain_s) == ("tiny", "mode", 7)


async def test_an_engine_stands_beside_the_projects_own_commands(tmp_path: Path) -> None:
    code = "rt.command('predict')(lambda prompt: 'mine')\n"
    async with (
        build(project(tmp_path, code, "engine: 'scripted:text=theirs'\n")) as app,
        AsyncClient(app) as client,
    ):
        assert await client.run("predict", prompt="Say") == "mine"
        assert (await items(app, "chat", messages=[{"role": "user", "content": "Say"}]))[0][
            "chunk"
        ] == "theirs"


async def test_the_engine_of_a_manifest_needs_no_code_and_a_flag_goes_before_it(tmp_path: Path) -> None:
    (tmp_path / "manifest.yml").write_text("name: bare\nengine: scripted:text=named\n")
    async with build(tmp_path) as app:
        assert (await items(app, "predict", prompt="Say"))[0]["chunk"] == "named"
    async with build(tmp_path, "scripted:text=flag") as app:
        assert (await items(app, "predict", prompt="Say"))[0]["chunk"] == "flag"


@pytest.mark.parametrize("flag", [None, 2])
async def test_with_workers_only_they_open_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: int | None
) -> None:
    engine = "engine: scripted:text=one,capacity=3"
    (tmp_path / "manifest.yml").write_text(f"name: bare\nworkers: {2 if flag is None else 1}\n{engine}\n")
    opened: list[str] = []
    monkeypatch.setattr("penstock.compose.engines.open", opened.append)
    monkeypatch.setattr("penstock.compose.engines.capacity", lambda _: 3)
    async with build_app(tmp_path, None, ServerSettings(workers=flag)) as app:
        assert (await items(app, "predict", prompt="Say"))[0]["chunk"] == "one"
        assert [*(await app.health()).checks] == ["worker 1", "worker 2"]
        assert app._commands["chat"].concurrency == 6  # for both engines together
    assert opened == []


async def test_a_flag_of_no_workers_goes_before_the_manifest(tmp_path: Path) -> None:
    where = project(tmp_path, "import os\nrt.command('where')(os.getpid)\n", "workers: 2\n")
    async with (
        build_app(where, None, ServerSettings(workers=0)) as app,
        AsyncClient(app) as client,
    ):
        assert await client.run("where") == os.getpid()


async def test_the_folders_manifest_serves_a_runtime_made_without_one(tmp_path: Path) -> None:
    where = project(tmp_path, "")
    (where / "run.py").write_text("from penstock import Runtime\nrt = Runtime()\n")
    async with build(where) as app:
        assert app.manifest.version == "1.2.3"


async def test_the_engine_is_opened_by_the_start_and_closed_with_the_app(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[ScriptedEngine] = []

    def open_engine(spec: str) -> ScriptedEngine:
        opened.append(ScriptedEngine("one", engine_id=spec))
        return opened[-1]

    monkeypatch.setattr("penstock.engines.open", open_engine)
    app = build(None, "mine")
    assert opened == []
    async with app:
        assert await items(app, "predict", prompt="Say")
    with pytest.raises(CallError, match="closed"):
        await anext(opened[0].stream_text("Say"))


async def test_health_is_told_while_a_project_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = SimpleNamespace(reached=threading.Event(), opened=threading.Event())
    monkeypatch.setitem(sys.modules, "gate", gate)  # type: ignore[arg-type]
    app = build(project(tmp_path, "import gate\ngate.reached.set()\ngate.opened.wait(5)\n"))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(app.start)
            await anyio.to_thread.run_sync(gate.reached.wait)
            health = await app.health()
            gate.opened.set()
    await app.aclose()
    assert (health.name, health.status, health.phase) == ("tiny", "starting", "importing")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import sys\nsys.exit(0)\n", "sys.exit"),
        ("rt = Runtime('manifest.yml')\n", "2 Runtimes"),
    ],
)
async def test_a_project_that_cannot_be_served_is_refused(tmp_path: Path, code: str, said: str) -> None:
    app = build(project(tmp_path, code))
    with pytest.raises(AuthoringError, match=said):
        await app.start()
    assert (await app.health()).status == "unhealthy"
