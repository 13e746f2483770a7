"""What docs/authoring.md and docs/engines.md list is there, and all of it."""

from __future__ import annotations

import inspect
from typing import get_args

import msgspec

from docs.pages import DOCS, codes, table
from penstock import CallContext, engines
from penstock.engines.base import Engine
from penstock.engines.llamacpp_server import LlamaSettings
from penstock.engines.scripted import _SPEC_NAMES, Fault
from penstock.integrations.names import _MODULES
from penstock.runtime.command import DEFAULT_ASYNC_CONCURRENCY, DEFAULT_QUEUE, DEFAULT_SYNC_CONCURRENCY
from penstock.runtime.threads import BATCH
from penstock.runtime.watchdog import HELD_S

AUTHORING, ENGINES = DOCS / "authoring.md", DOCS / "engines.md"


def test_all_that_a_call_tells_is_listed() -> None:
    shown = {code.split("(")[0] for row in table(AUTHORING, "what") for code in codes(row["what"])}
    public = {name for name in vars(CallContext) if not name.startswith("_")}
    assert shown == public - {"id", "fire_aborts"}  # another name, and the server's own


def test_the_numbers_are_those_in_force() -> None:
    text = " ".join(AUTHORING.read_text(encoding="utf-8").split())
    assert f"({DEFAULT_ASYNC_CONCURRENCY} of an async one, {DEFAULT_SYNC_CONCURRENCY} of another)" in text
    assert f"and {DEFAULT_QUEUE} more wait" in text
    assert f"{BATCH} items ahead" in text
    assert f"goes on for {HELD_S * 1000:g} ms" in text


def test_every_import_name_is_told() -> None:
    text = AUTHORING.read_text(encoding="utf-8")
    names = {name for module in _MODULES.values() for name in module if name != "*"}
    modules = {module for module, found in _MODULES.items() if found}
    assert [name for name in names | modules if f"`{name}`" not in text] == []


def test_every_adapter_has_its_row_and_its_example_is_the_code_s() -> None:
    rows = {codes(row["adapter"])[0]: row for row in table(ENGINES, "adapter")}
    assert {name: codes(row["spec, such as"])[0] for name, row in rows.items()} == {
        name: adapter.example for name, adapter in engines.ADAPTERS.items()
    }


def test_every_option_of_the_embedded_model_has_its_row() -> None:
    rows = {codes(row["option"])[0]: row["default"] for row in table(ENGINES, "option")}
    fields = {field.name: field.default for field in msgspec.structs.fields(LlamaSettings)}
    assert rows.keys() == fields.keys()
    assert [name for name, value in fields.items() if value is not None and rows[name] != f"`{value}`"] == []


def test_every_word_of_a_script_has_its_row() -> None:
    rows = {codes(row["name"])[0]: row for row in table(ENGINES, "name")}
    assert rows.keys() == set(_SPEC_NAMES)
    assert set(codes(rows["fault"]["meaning"])) == set(get_args(Fault))


def test_an_engine_is_made_of_what_the_page_says() -> None:
    abstract = Engine.__abstractmethods__
    assert abstract == {"generate", "close"}
    assert list(inspect.get_annotations(Engine)) == ["engine_id", "model", "capacity", "kv"]
