"""Clarifai's model folders: what is served of them, and what an author is told when it cannot be."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import anyio
import pytest

from penstock import AsyncClient, AuthoringError, CallError, ErrorCode
from penstock.calls.limits import CallLimits
from penstock.compose import STREAMING_MODE, build_app, describe_project, find_project
from penstock.errors import ManifestError
from penstock.integrations import names
from penstock.integrations.model_folder import stand_ins
from penstock.integrations.model_folder.folder import DEFAULT_THREADS, THREADS, import_model, is_model_folder
from penstock.runtime.abort import AbortCallbacks
from penstock.runtime.app import App
from penstock.server.settings import ServerSettings

pytestmark = pytest.mark.anyio
stand_ins_only = pytest.mark.skipif(
    PathFinder.find_spec("clarifai") is not None,
    reason="the package clarifai is installed: its classes are used, and say what they do not take",
)

CONFIG = "model:\n  id: My_Model\n  user_id: me\n  model_type_id: any-to-any\n"
IMPORTS = """
from typing import Iterator, List, Tuple

from clarifai.runners.models.model_class import ModelClass
from clarifai.runners.utils.data_types import JSON, Concept, Image, NamedFields, Text
from clarifai.runners.utils.data_utils import Param
from clarifai.utils.logging import logger
from clarifai_protocol import get_item_id, register_item_abort_callback
"""
MODEL = """
import threading

ABORTED = threading.Event()
HELD = threading.Event()
SEEN = []


class MyModel(ModelClass):
    def __init__(self):
        super().__init__()
        register_item_abort_callback(self.abort)

    def load_model(self):
        logger.info("loading")
        self.suffix = "!"

    def abort(self, item_id):
        SEEN.append(item_id)
        ABORTED.set()

    def close(self):
        SEEN.append("closed")

    @ModelClass.method
    def predict(self, text: str, n: int = 1) -> str:
        \"\"\"Say it again.

        And again.
        \"\"\"
        self.set_output_context(prompt_tokens=1, completion_tokens=n)
        return text * n + self.suffix

    @ModelClass.method
    def generate(
        self, text: str, n: int = Param(default=3, description="how often", min_value=1, max_value=9)
    ) -> Iterator[str]:
        return (f"{text}{number}" for number in range(n))

    @ModelClass.method
    def stream(self, xs: Iterator[str], suffix: str = "!") -> Iterator[str]:
        try:
            for x in xs:
                yield x + suffix
        finally:
            SEEN.append("stream left")

    @ModelClass.method
    def fields(self, pairs: Iterator[NamedFields(x=str, y=int)]) -> Iterator[NamedFields(z=str, b=bytes)]:
        for pair in pairs:
            yield NamedFields(z=pair.x * pair["y"], b=b"hallo")

    @ModelClass.method
    def label(self, image: Image, text: Text = None) -> Tuple[List[Concept], JSON]:
        said = text.text if text else ""
        return [Concept(said or "a cat", 0.5)], JSON({"size": len(image.bytes), "url": image.url})

    @ModelClass.method
    def encode(self, data: bytes, tone: str = Param("low", choices=["low", "high"])) -> bytes:
        return data + tone.encode()

    @ModelClass.method
    def ids(self) -> str:
        return get_item_id()

    @ModelClass.method
    def fail(self) -> str:
        raise ValueError("secret")

    @ModelClass.method
    def transport(self, msg: str) -> str:
        return msg.encode()

    @ModelClass.method
    def hold(self) -> Iterator[str]:
        try:
            yield "holding"
            HELD.wait(10)
            yield "late"
        finally:
            SEEN.append("hold left")

    @ModelClass.method
    def deaf(self, xs: Iterator[str], size: str = Param("small", description="of what")) -> Iterator[str]:
        for x in xs:
            yield size
            HELD.wait(10)

    def helper(self) -> str:
        return "not to be called"
"""

CAT = {"name": "a cat", "value": 0.5, "id": "a-cat"}
SAID = {"name": "cat", "value": 0.5, "id": "cat"}


@pytest.fixture(autouse=True)
def _own_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what serving a project does to the process."""
    monkeypatch.setenv(STREAMING_MODE, "")
    monkeypatch.delenv(THREADS, raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("clarifai", "penstock_project_")):
            del sys.modules[name]


def folder(path: Path, code: str, config: str = CONFIG, place: str = "1/model.py") -> Path:
    (path / "config.yaml").write_text(config)
    (path / place).parent.mkdir(exist_ok=True)
    (path / place).write_text(IMPORTS + code)
    return path


def method(signature: str, body: str = "pass") -> str:
    return f"class M(ModelClass):\n    @ModelClass.method\n    {signature}:\n        {body}\n"


def build(path: Path) -> App:
    return build_app(path, None, ServerSettings())


async def call(path: Path, command: str, **inputs: Any) -> Any:
    async with build(path) as app, AsyncClient(app) as client:
        return await client.run(command, inputs)


async def items(path: Path, command: str, **inputs: Any) -> list[Any]:
    async with build(path) as app, AsyncClient(app) as client, client.stream(command, inputs) as stream:
        return [item async for item in stream]


def module() -> Any:
    return sys.modules["penstock_project_model"]


def refused(path: Path) -> str:
    with pytest.raises(AuthoringError) as error:
        describe_project(path)
    return str(error.value)


# -- what is served ------------------------------------------------------------------------------------


def test_methods_are_commands_with_their_words_and_schemas(tmp_path: Path) -> None:
    said = describe_project(folder(tmp_path, MODEL))
    assert (said.name, said.default_command) == ("my-model", "predict")
    marked = [
        "predict",
        "generate",
        "stream",
        "fields",
        "label",
        "encode",
        "ids",
        "fail",
        "transport",
        "hold",
        "deaf",
    ]
    assert list(said.commands) == ["initialize", *marked, "cleanup"]
    assert said.commands["predict"].description == "Say it again."
    assert [name for name, command in said.commands.items() if command.streaming] == [
        "generate",
        "stream",
        "fields",
        "hold",
        "deaf",
    ]
    predict = said.commands["predict"].input_schema
    assert (predict["required"], set(predict["properties"])) == (["text"], {"text", "n"})
    assert predict["properties"]["n"] == {"title": "N", "type": "integer", "default": 1}
    assert said.commands["generate"].input_schema["properties"]["n"] == {
        "title": "N",
        "type": "integer",
        "description": "how often",
        "minimum": 1,
        "maximum": 9,
        "default": 3,
    }
    assert said.commands["generate"].item_schema == {"type": "string"}
    assert said.commands["encode"].input_schema["properties"]["tone"]["enum"] == ["low", "high"]


def test_the_model_may_lie_beside_its_settings(tmp_path: Path) -> None:
    code = method("def describe(self) -> str", "return ''")
    said = describe_project(folder(tmp_path, code, "num_threads: 3\n", "model.py"))
    assert said.name == tmp_path.name.replace("_", "-")
    assert said.default_command == "describe"


@pytest.mark.parametrize(
    ("command", "inputs", "answer"),
    [
        ("predict", {"text": "a", "n": 2}, "aa!"),
        ("predict", {"text": "a"}, "a!"),
        ("label", {"image": {"base64": "aGFsbG8="}}, [[CAT], {"size": 5, "url": ""}]),
        ("label", {"image": {"url": "http://u"}, "text": "cat"}, [[SAID], {"size": 0, "url": "http://u"}]),
        ("encode", {"data": "aGFsbG8="}, "aGFsbG9sb3c="),
        ("transport", {"msg": "{}"}, "{}"),
    ],
)
async def test_a_method_answers(tmp_path: Path, command: str, inputs: dict[str, Any], answer: Any) -> None:
    assert await call(folder(tmp_path, MODEL), command, **inputs) == answer


@pytest.mark.parametrize(
    ("command", "inputs", "given"),
    [
        ("generate", {"text": "a"}, ["a0", "a1", "a2"]),
        ("generate", {"text": "a", "n": 1}, ["a0"]),
        ("stream", {"xs": ["a", "b"]}, ["a!", "b!"]),
        ("stream", {"xs": [], "suffix": "?"}, []),
        ("fields", {"pairs": [{"x": "a", "y": 2}]}, [{"z": "aa", "b": "aGFsbG8="}]),
    ],
)
async def test_a_generator_streams(
    tmp_path: Path, command: str, inputs: dict[str, Any], given: list[Any]
) -> None:
    assert await items(folder(tmp_path, MODEL), command, **inputs) == given


@pytest.mark.parametrize(
    ("command", "inputs", "said"),
    [
        ("predict", {}, "text: field required"),
        ("predict", {"text": "a", "m": 1}, "m: unknown input"),
        ("generate", {"text": "a", "n": 10}, "less than or equal to 9"),
        ("fields", {"pairs": [{"x": "a"}]}, "y: field required"),
        ("fields", {"pairs": [{"x": "a", "y": 1, "z": 1}]}, "z: extra inputs"),
        ("label", {"image": {}}, "give base64, or a url"),
        ("label", {"image": {"base64": "%"}}, "base64"),
        ("encode", {"data": "aGFsbG8=", "tone": "mid"}, "'low' or 'high'"),
        ("predict", {"text": "a", "model_instance": {}}, "unknown input"),
    ],
)
async def test_bad_input_is_refused(tmp_path: Path, command: str, inputs: dict[str, Any], said: str) -> None:
    with pytest.raises(CallError, match=said) as caught:
        await call(folder(tmp_path, MODEL), command, **inputs)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT


async def test_what_a_method_raises_is_typed_and_not_told(tmp_path: Path) -> None:
    with pytest.raises(CallError) as caught:
        await call(folder(tmp_path, MODEL), "fail")
    assert caught.value.code is ErrorCode.COMMAND_FAILED
    assert caught.value.message == "fail failed (ValueError)"


async def test_a_model_says_whether_it_wants_more_work(tmp_path: Path) -> None:
    code = method("def predict(self) -> str") + "    def check_admission(self):\n        return 0\n"
    assert await call(folder(tmp_path, code), "check_admission") is False


async def test_items_come_while_the_method_runs(tmp_path: Path) -> None:
    with anyio.fail_after(5):
        async with (
            build(folder(tmp_path, MODEL)) as app,
            AsyncClient(app) as client,
            client.stream("stream", {"xs": ["a"]}, more_input=True) as stream,
        ):
            assert await anext(stream) == "a!"
            await stream.send("b")
            assert await anext(stream) == "b!"
            with pytest.raises(CallError, match="string"):
                await stream.send(1)
            await stream.end_input()
            assert [item async for item in stream] == []


# -- its life ------------------------------------------------------------------------------------------


async def test_the_model_is_loaded_before_it_is_ready_and_closed_at_the_end(tmp_path: Path) -> None:
    async with build(folder(tmp_path, MODEL)) as app, AsyncClient(app) as client:
        assert await client.run("initialize") == {"state": ["model_instance"]}
        seen = module().SEEN
        assert seen == []
        await client.run("cleanup")
        assert await client.run("predict", text="a") == "a!"  # loaded again by the first who needs it
    assert seen == ["closed", "closed"]


async def test_a_model_that_cannot_be_loaded_is_told_at_start(tmp_path: Path) -> None:
    code = (
        method("def predict(self) -> str")
        + "    def load_model(self):\n        raise OSError('no weights')\n"
    )
    with pytest.raises(AuthoringError, match=r"initialize did not complete: .*OSError"):
        async with build(folder(tmp_path, code)):
            pass


async def test_a_cancel_reaches_the_model_and_closes_its_generator(tmp_path: Path) -> None:
    with anyio.fail_after(5):
        async with build(folder(tmp_path, MODEL)) as app, AsyncClient(app) as client:
            async with client.stream("hold", {}, task_id="held") as stream:
                assert await anext(stream) == "holding"
                await client.cancel("held")
                await anyio.to_thread.run_sync(module().ABORTED.wait)
                module().HELD.set()
            seen, request_id = module().SEEN, stream.request_id
    assert seen == [request_id, "hold left", "closed"]


async def test_a_cancel_frees_a_method_that_waits_for_input(tmp_path: Path) -> None:
    with anyio.fail_after(5):
        async with build(folder(tmp_path, MODEL)) as app, AsyncClient(app) as client:
            async with client.stream("stream", {"xs": ["a"]}, more_input=True, task_id="held") as stream:
                assert await anext(stream) == "a!"
                await client.cancel("held")
            seen = module().SEEN
    assert "stream left" in seen


async def test_a_method_that_does_not_stop_keeps_nobody_from_closing(tmp_path: Path) -> None:
    path = folder(tmp_path, MODEL)
    names.install(first=True)
    others = asyncio.all_tasks()
    with anyio.fail_after(5):
        runtime = import_model(path, find_project(path)[0], AbortCallbacks())
        async with App(runtime, limits=CallLimits(cancel_grace_s=0.05)) as app, AsyncClient(app) as client:
            stream = client.stream("deaf", {"xs": ["a"]}, on_disconnect="continue")
            async with stream:
                assert await anext(stream) == "small"
        if left := asyncio.all_tasks() - others:
            await asyncio.wait(left)
    module().HELD.set()


async def test_the_item_id_is_the_request_s(tmp_path: Path) -> None:
    async with build(folder(tmp_path, MODEL)) as app, AsyncClient(app) as client:
        answer = await client.run("ids", task_id="asked")
        assert answer == (await client.task("asked")).request_id


# -- settings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "env", "threads"),
    [("num_threads: 4", "7", 4), ("", "7", 7), ("num_threads:", "", DEFAULT_THREADS)],
)
async def test_so_many_calls_of_a_method_run_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, env: str, threads: int
) -> None:
    monkeypatch.setenv(THREADS, env)
    async with build(folder(tmp_path, MODEL, f"{CONFIG}{line}\n")) as app:
        assert {
            name: app.bound[name].concurrency for name in ("predict", "generate", "stream")
        } == dict.fromkeys(("predict", "generate", "stream"), threads)


@pytest.mark.parametrize("value", ["0", "many", "-1", "true", "1.5"])
def test_a_number_of_threads_that_is_none_is_told_with_its_line(tmp_path: Path, value: str) -> None:
    with pytest.raises(ManifestError, match=r"config\.yaml:5: num_threads: should be a number from 1 on"):
        find_project(folder(tmp_path, MODEL, f"{CONFIG}num_threads: {value}\n"))


def test_a_number_of_threads_in_the_environment_that_is_none_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(THREADS, "many")
    with pytest.raises(ManifestError, match=f"the environment \\({THREADS}\\)"):
        find_project(folder(tmp_path, MODEL))


def test_requirements_are_what_doctor_checks(tmp_path: Path) -> None:
    text = "clarifai==12.5.0\n# a comment\n--extra-index-url https://x\npydantic>=2  # why\nnumpy\n-r more\n"
    (tmp_path / "requirements.txt").write_text(text)
    manifest, _ = find_project(folder(tmp_path, MODEL))
    assert manifest.requires == ("pydantic>=2", "numpy")


def test_a_manifest_of_ours_wins(tmp_path: Path) -> None:
    assert is_model_folder(folder(tmp_path, MODEL))
    (tmp_path / "manifest.yml").write_text("name: mine\nengine: scripted\n")
    assert find_project(tmp_path)[0].name == "mine"


# -- what is refused -----------------------------------------------------------------------------------


@stand_ins_only
@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("", "has no class derived from ModelClass; it needs exactly one"),
        ("class A(ModelClass): pass\nclass B(ModelClass): pass\n", "has 2 classes derived from ModelClass"),
        ("class A(ModelClass): pass\n", "A has no method that callers may call; put @ModelClass.method"),
        (method("def predict(self, x: str)"), "does not say what it returns; add `-> str`"),
        (method("async def predict(self) -> str"), "is async; model methods are plain functions"),
        (method("def predict(self, xs: Iterator[str]) -> str"), "takes a stream (xs), so it must give one"),
        (method("def p(self, a: Iterator[str], b: Iterator[str]) -> Iterator[str]"), "streams (a, b)"),
        (method("def predict(self, model_instance: str) -> str"), "which is taken; rename it"),
        (method("def predict(self, with_proto: bool) -> str"), "which is taken; rename it"),
        (method("def predict(self, **options) -> str"), "name each parameter"),
        (method("def predict(self, *texts) -> str"), "takes *texts, which has no name for callers"),
        (method("def predict(self, text: str, /) -> str"), "takes text: str, which has no name"),
        (method("def predict(self, x: 'Nothing') -> str"), "a type hint names 'Nothing'"),
        (method("def predict(self, x: object()) -> str"), "has no JSON Schema"),
        (method("def initialize(self) -> str"), "defined twice; give one of them another name"),
    ],
)
def test_a_model_that_cannot_be_served_is_refused_with_the_fix(tmp_path: Path, code: str, said: str) -> None:
    assert said in refused(folder(tmp_path, code))


@stand_ins_only
def test_a_refused_method_is_named_with_its_place(tmp_path: Path) -> None:
    message = refused(folder(tmp_path, method("def predict(self)")))
    assert f"{tmp_path}/1/model.py:10: method 'predict'" in message


@stand_ins_only
def test_an_import_that_is_not_there_names_the_package(tmp_path: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"clarifai\.runners\.models\.model_builder"):
        describe_project(folder(tmp_path, "from clarifai.runners.models.model_builder import ModelBuilder\n"))


def test_a_subclass_is_the_model_and_inherits_methods(tmp_path: Path) -> None:
    code = (
        MODEL + "\n\nclass Louder(MyModel):\n    def predict(self, text, n=1):\n        return text.upper()\n"
    )
    commands = describe_project(folder(tmp_path, code)).commands
    assert commands["predict"].input_schema["required"] == ["text"]


# -- the names -----------------------------------------------------------------------------------------


@stand_ins_only
def test_the_names_are_there_only_once_a_model_is_imported(tmp_path: Path) -> None:
    find_project(folder(tmp_path, MODEL))
    with pytest.raises(ModuleNotFoundError):
        import_of("clarifai")
    describe_project(tmp_path)
    for name, inside in stand_ins.MODULES.items():
        assert [each for each in inside if not hasattr(import_of(name), each)] == []


def test_a_package_that_is_installed_wins_and_is_not_mixed(tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "clarifai").mkdir(parents=True)
    (site / "clarifai" / "__init__.py").write_text("")
    sys.path.insert(0, str(site))
    project = tmp_path / "project"
    project.mkdir()
    with pytest.raises(ModuleNotFoundError, match=r"clarifai\.runners"):
        describe_project(folder(project, MODEL))


def import_of(name: str) -> Any:
    __import__(name)
    return sys.modules[name]


# -- OpenAI's protocol ---------------------------------------------------------------------------------

OPENAI = """
from clarifai.runners.models.openai_class import OpenAIModelClass


class Chunk:
    def __init__(self, text):
        self.text = text

    def model_dump_json(self):
        return self.text


class Stream(list):
    closed = False

    def close(self):
        Stream.closed = True


class Completions:
    def create(self, stream=False, **asked):
        SEEN.append(asked)
        return Stream([Chunk("1"), Chunk("2")]) if stream else Chunk("whole")


class Client:
    class chat:
        completions = Completions()


SEEN = []


class Mine(OpenAIModelClass):
    client = Client()
    model = "mine"
"""


@stand_ins_only
async def test_openai_transports_are_commands(tmp_path: Path) -> None:
    path = folder(tmp_path, OPENAI)
    async with build(path) as app, AsyncClient(app) as client:
        assert await client.run("openai_transport", msg='{"messages": [], "model": "theirs"}') == "whole"
        async with client.stream("openai_stream_transport", {"msg": "{}"}) as stream:
            assert [item async for item in stream] == ["1", "2"]
        seen, closed = module().SEEN, module().Stream.closed
        with pytest.raises(CallError, match=r"openai_transport failed \(ValueError\)"):
            await client.run("openai_transport", msg='{"openai_endpoint": "/nowhere"}')
        with pytest.raises(CallError, match=r"openai_stream_transport failed \(ValueError\)"):
            await client.run("openai_stream_transport", msg='{"openai_endpoint": "/embeddings"}')
    assert (seen, closed) == ([{"messages": [], "model": "mine"}, {"model": "mine"}], True)


async def test_no_thread_is_left(tmp_path: Path) -> None:
    before = {thread.name for thread in threading.enumerate()}
    await items(folder(tmp_path, MODEL), "stream", xs=["a"])
    left = [thread for thread in threading.enumerate() if thread.name not in before]
    for thread in left:
        thread.join(5)
    assert [thread for thread in left if thread.is_alive()] == []
