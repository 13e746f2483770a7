"""Typed stubs: the same for the same offer, what checkers want, and what a live server takes."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import typer
from anyio.from_thread import start_blocking_portal
from hypothesis import given, settings
from hypothesis import strategies as st

from client.conftest import served
from penstock import AsyncClient, Client
from penstock.cli.client_gen import client_gen
from penstock.client.stubs.layout import WIDTH, Group, lay
from penstock.client.stubs.python import write_python
from penstock.client.stubs.reading import pascal, read_offer, snake
from penstock.client.stubs.typescript import write_typescript
from penstock.client.transport import Offer
from penstock.compose import build_app
from penstock.protocol.dispatch import CommandDescription
from penstock.server.settings import ServerSettings

HERE = Path(__file__).parent
PROJECT = HERE / "project"


@pytest.fixture
def url() -> Iterator[str]:
    """A server of the project, in a thread of its own."""

    @asynccontextmanager
    async def serving() -> AsyncIterator[str]:
        async with build_app(PROJECT, None, ServerSettings(), compat=False) as app, served(app) as url:
            yield url

    with start_blocking_portal() as portal, portal.wrap_async_context_manager(serving()) as url:
        yield url


def generate(source: str, out: Path, *, check: bool = False) -> int:
    """Run the verb; return its exit code."""
    try:
        client_gen(source, out, check)
    except typer.Exit as left:
        return left.exit_code
    return 0


def ran(*command: str, cwd: Path) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, cwd=cwd)
    return done.returncode, done.stdout + done.stderr


# -- the verb ----------------------------------------------------------------------------------------


def test_a_server_and_its_project_give_the_same(url: str, tmp_path: Path) -> None:
    for suffix in ("py", "ts"):
        texts = []
        for number, source in enumerate((url, url.replace("http", "ws"), str(PROJECT))):
            out = tmp_path / f"stubs{number}.{suffix}"
            assert generate(source, out) == 0
            texts.append(out.read_text(encoding="utf-8"))
        assert texts[0] == texts[1] == texts[2]
        assert "Calls of all-kinds 1.2.0, written by `penstock client-gen`" in texts[0]


def test_what_is_out_of_date_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "stubs.py"
    assert generate(str(PROJECT), out, check=True) == 1
    assert generate(str(PROJECT), out) == 0
    assert generate(str(PROJECT), out, check=True) == 0
    out.write_text(out.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert generate(str(PROJECT), out, check=True) == 1
    assert "out of date" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "out", "code", "says"),
    [
        ("http://127.0.0.1:9", "stubs.py", 3, "no server answers"),
        (str(PROJECT), "stubs.js", 2, "neither .py nor .ts"),
        ("no-such-folder", "stubs.py", 1, "no-such-folder"),
    ],
)
def test_what_cannot_be_read_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str, out: str, code: int, says: str
) -> None:
    assert generate(source, tmp_path / out) == code
    assert says in capsys.readouterr().err


# -- Python ------------------------------------------------------------------------------------------


def test_python_is_formatted_and_type_checkers_know_it(tmp_path: Path) -> None:
    out = tmp_path / "stubs.py"
    assert generate(str(PROJECT), out) == 0
    assert ran("ruff", "format", "--isolated", "--check", "stubs.py", cwd=tmp_path)[0] == 0
    rules = ("--select", "F,I,UP,W", "--target-version", "py310")
    assert ran("ruff", "check", "--isolated", *rules, "stubs.py", cwd=tmp_path)[0] == 0
    use = (HERE / "use.py.txt").read_text(encoding="utf-8")
    (tmp_path / "use.py").write_text(use, encoding="utf-8")
    _, said = ran(
        "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "use.py", "stubs.py", cwd=tmp_path
    )
    wanted = {number: line.split("# ")[1] for number, line in enumerate(use.splitlines(), 1) if "# " in line}
    errors = dict(re.findall(r"^use\.py:(\d+): error: (.*)$", said, re.MULTILINE))
    assert {int(number) for number in errors} == set(wanted), said
    for number, what in wanted.items():
        assert what in errors[str(number)]
    assert f"Found {len(wanted)} errors" in said


def test_python_runs_against_a_live_server(url: str, tmp_path: Path) -> None:
    out = tmp_path / "stubs.py"
    assert generate(url, out) == 0
    stubs = load(out)
    with Client(url) as client:
        calls = stubs.AllKinds(client)
        assert calls.add({"a": 1}) == {"sum": 2}
        region = {"corners": [{"x": 1, "y": 2}], "colour": "red", "parts": [], "mark": {"class": "none"}}
        assert calls.find_all({"regions": [region], "data": b"\0"}) == [region]
        assert [item["chunk"] for item in calls.predict({"prompt": "A fox"})] == ["A", "fox"]
        assert calls.class_() == "held"
        assert list(calls.upper({"words": ["a"]}, task_id="mine")) == ["A"]
        assert client.task("mine").status == "completed"
        assert calls.run_add_twice({"start": 3})["steps"]["twice"] == {"sum": 5}
        assert len(list(calls.add_twice({"start": 3}))) == 3

    async def use() -> None:
        async with AsyncClient(url.replace("http", "ws")) as client:
            calls = stubs.AsyncAllKinds(client)
            assert await calls.add({"a": 1, "b": 4}) == {"sum": 5}
            assert [word async for word in calls.upper({"words": ["a", "b"]})] == ["A", "B"]
            assert (await calls.run_add_twice({"start": 3}))["steps"]["once"] == {"sum": 4}

    asyncio.run(use())


def load(path: Path) -> Any:
    spec = spec_from_file_location("stubs_of_a_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# -- any schema --------------------------------------------------------------------------------------


def offering(schema: Any, item: Any, name: str) -> Offer:
    return Offer(
        {name: CommandDescription(description=name, streaming=True, input_schema=schema, item_schema=item)}
    )


LEAVES = st.sampled_from(
    [
        {"type": "string"},
        {"type": "integer", "description": 'of "so"\nmany \\ """'},
        {"type": ["number", "null"]},
        {"enum": ["a", 'b"', 3, None, True]},
        {"const": "it's"},
        {"type": "string", "format": "binary"},
        {"$ref": "#/$defs/Tree"},
        {"$ref": "#/$defs/Nobody"},
        {"$ref": "http://elsewhere/x"},
        {"type": "object"},
        {"type": "object", "additionalProperties": False},
        {},
        True,
        {"enum": [1.5]},
        {"type": "strange"},
    ]
)
KEYS = st.sampled_from(["a", "b_c", "class", "d-e", "__f", "9", "", 'q"', "self", "input", "ä b"])


def deeper(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.builds(lambda of: {"type": "array", "items": of}, inner),
        st.builds(lambda of: {"type": "array", "prefixItems": of}, st.lists(inner, max_size=3)),
        st.builds(lambda of: {"anyOf": of}, st.lists(inner, min_size=1, max_size=4)),
        st.builds(
            lambda of, required: {"type": "object", "properties": of, "required": [*of] if required else []},
            st.dictionaries(KEYS, inner, min_size=1, max_size=4),
            st.booleans(),
        ),
        st.builds(lambda of: {"type": "object", "additionalProperties": of}, inner),
    )


TREE = {"type": "object", "properties": {"left": {"$ref": "#/$defs/Tree"}, "leaf": {"type": "integer"}}}
SCHEMAS = st.builds(
    lambda of, required: {
        "type": "object",
        "properties": of,
        "required": [*of] if required else [],
        "$defs": {"Tree": TREE, "List": {"type": "array", "items": {"$ref": "#/$defs/List"}}},
    },
    st.dictionaries(KEYS, st.recursive(LEAVES, deeper, max_leaves=8), max_size=4),
    st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(SCHEMAS, SCHEMAS, st.text(max_size=12))
def test_any_schemas_give_modules_that_load(given: Any, item: Any, name: str) -> None:
    stubs = read_offer(name, "1", offering(given, item, name))
    text = write_python(stubs)
    assert text == write_python(read_offer(name, "1", offering(given, item, name)))
    names: dict[str, Any] = {}
    exec(compile(text, "stubs.py", "exec"), names)
    assert stubs.name in names
    assert len({shape.name for shape in stubs.shapes}) == len(stubs.shapes)
    assert write_typescript(stubs).endswith("}\n")


def test_shapes_of_one_name_are_one_only_if_they_are_alike() -> None:
    def schema(kind: str) -> Any:
        point = {"type": "object", "properties": {"x": {"type": kind}}, "required": ["x"]}
        return {
            "type": "object",
            "properties": {"at": {"$ref": "#/$defs/Point"}},
            "$defs": {"Point": point},
        }

    commands = {
        name: CommandDescription(description="", streaming=False, input_schema=schema(kind), item_schema={})
        for name, kind in (("one", "integer"), ("other", "integer"), ("third", "string"))
    }
    stubs = read_offer("p", "1", Offer(commands))
    assert sorted(shape.name for shape in stubs.shapes) == [
        "OneInput",
        "OtherInput",
        "Point",
        "ThirdInput",
        "ThirdPoint",
    ]


def test_names_that_would_be_one_are_several() -> None:
    empty = {"type": "object", "properties": {}, "additionalProperties": False}
    commands = {
        name: CommandDescription(description="", streaming=False, input_schema=empty, item_schema={})
        for name in ("a.b", "a_b", "client", "a-b")
    }
    names = [method.name for method in read_offer("p", "1", Offer(commands)).methods]
    assert names == ["a_b", "a_b_", "a_b__", "client_"]
    assert (pascal("story-teller_2"), pascal("2 much"), snake("9.a")) == ("StoryTeller2", "X2Much", "x9_a")


def test_what_is_too_long_has_a_line_for_each_part() -> None:
    short = Group("f(", ["a", Group("g(", ["b"], ")")], ")")
    assert lay("x = ", short) == "x = f(a, g(b))"
    long = Group("f(", ["a" * WIDTH, Group("g(", ["b"], ")", ender=False)], ")")
    assert lay("x = ", long, ":") == f"x = f(\n    {'a' * WIDTH},\n    g(b),\n):"
