"""The model in docs/clarifai.md is served, and the page's tables are the code's."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.pages import DOCS, codes, fences, table
from penstock import AsyncClient
from penstock.compose import STREAMING_MODE, build_app
from penstock.errors import CallError, ErrorCode
from penstock.gateway.clarifai import records
from penstock.gateway.clarifai.settings import LinkSettings
from penstock.integrations.model_folder import forms
from penstock.integrations.model_folder.folder import DEFAULT_THREADS, THREADS
from penstock.integrations.model_folder.stand_ins import MODULES
from penstock.protocol.clarifai.statuses import name_of, status_of
from penstock.server.settings import ServerSettings

pytestmark = pytest.mark.anyio

PAGE = DOCS / "clarifai.md"


@pytest.fixture(autouse=True)
def _own_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(STREAMING_MODE, "")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("clarifai", "penstock_project_")):
            del sys.modules[name]


async def test_the_model_is_served(tmp_path: Path) -> None:
    (fence,) = (fence for fence in fences(PAGE) if fence.info.startswith("py "))
    _, command, given = fence.info.split(" ", 2)
    (tmp_path / "config.yaml").write_text("model:\n  id: repeater\n")
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "model.py").write_text(fence.body)
    async with build_app(tmp_path, None, ServerSettings()) as app, AsyncClient(app) as client:
        assert await client.run(command, json.loads(given)) == "haha!"
        async with client.stream("generate", {"text": "ab"}) as stream:
            assert [item async for item in stream] == ["a", "b"]
        async with client.stream("stream", {"texts": ["a"]}) as stream:
            assert [item async for item in stream] == ["a!"]


def test_every_name_that_stands_in_is_listed() -> None:
    rows = {codes(row["module"])[0]: codes(row["names"]) for row in table(PAGE, "module")}
    told = {module: sorted(names) for module, names in MODULES.items() if names}
    same = "clarifai.runners.utils.data_types"
    assert rows.pop(f"{same}.data_types") == []
    assert told.pop(f"{same}.data_types") == told[same]
    assert rows == told


def test_the_forms_are_those_of_the_code() -> None:
    rows = {codes(row["type"])[0]: codes(row["JSON"])[0] for row in table(PAGE, "type") if "{" in row["JSON"]}
    kinds = {"Text": forms.Text, "Concept": forms.Concept, "Region": forms.Region, "Frame": forms.Frame}
    for name, form in {**kinds, "numpy.ndarray": forms.Array}.items():
        assert [part.strip('{} "') for part in rows[name].split(",")] == list(form.model_fields), name
    assert set(forms.Media.model_fields) == {"base64", "url"}


def test_the_number_of_threads_is_told() -> None:
    assert f"else `{THREADS}`, else {DEFAULT_THREADS}" in PAGE.read_text(encoding="utf-8")


def test_every_setting_of_the_link_has_its_row_with_its_default() -> None:
    rows = {codes(row["variable of the link"])[0]: row for row in table(PAGE, "variable of the link")}
    fields = LinkSettings.model_fields
    assert rows.keys() == {f"PENSTOCK_CLARIFAI_{name.upper()}" for name in fields}
    for name, field in fields.items():
        assert codes(rows[f"PENSTOCK_CLARIFAI_{name.upper()}"]["default"]) == [str(field.default)]


def test_every_error_has_its_status() -> None:
    rows = {code: codes(row["status"])[0] for row in table(PAGE, "code") for code in codes(row["code"])}
    assert rows == {code.value: name_of(status_of(CallError("", code)).code) for code in ErrorCode}


def test_the_room_for_records_is_told() -> None:
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    of_key = f"{records.MAX_RECORDS_OF_KEY:,} records of {records.MAX_BYTES_OF_KEY // 2**20} MiB of each key"
    assert of_key in text
    assert f"{records.MAX_RECORDS:,} of {records.MAX_BYTES // 2**20} MiB in all" in text
