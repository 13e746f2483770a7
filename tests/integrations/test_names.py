"""The import names of the reference systems, beside packages that have them too."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from penstock.integrations import names
from penstock.runtime.abort import register_abort_callback
from penstock.runtime.context import get_request_id
from penstock.runtime.runtime import Runtime


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of packages; nothing of the reference systems is imported before or after."""
    ours = lambda: [name for name in sys.modules if name.partition(".")[0] in TOPS]  # noqa: E731
    monkeypatch.setattr(sys, "meta_path", [each for each in sys.meta_path if each is not names._finder])
    monkeypatch.syspath_prepend(str(tmp_path))
    kept = {name: sys.modules.pop(name) for name in ours()}
    yield tmp_path
    for name in ours():
        del sys.modules[name]
    sys.modules.update(kept)


TOPS = {"xumi", "clarifai_protocol", "sagellm_protocol"}


def package(site: Path, name: str, **files: str) -> None:
    (site / name).mkdir()
    for stem, text in {"__init__": "", **files}.items():
        (site / name / f"{stem}.py").write_text(text)


def test_ours_come_before_what_is_installed(site: Path, caplog: pytest.LogCaptureFixture) -> None:
    package(site, "xumi", runtime="x = 1")
    with caplog.at_level(logging.WARNING, "penstock.compat"):
        names.install(first=True)
    assert import_module("xumi.runtime.runtime_v2").XUMIRuntimeV2 is Runtime
    assert "xumi is installed; penstock's own xumi is used instead" in caplog.text


def test_what_is_installed_comes_before_ours_and_is_not_mixed_with_them(site: Path) -> None:
    package(site, "xumi", other="x = 1")
    names.install(first=False)
    assert import_module("xumi.other").x == 1
    with pytest.raises(ModuleNotFoundError):
        import_module("xumi.runtime")


def test_the_rest_of_an_installed_runner_protocol_stays(site: Path, caplog: pytest.LogCaptureFixture) -> None:
    package(site, "clarifai_protocol", __init__="BaseRunner = 1\nget_item_id = None\n", health="x = 2")
    names.install(first=True)
    found = import_module("clarifai_protocol")
    assert (found.BaseRunner, import_module("clarifai_protocol.health").x) == (1, 2)
    assert found.get_item_id is found.get_request_id is get_request_id
    assert found.register_abort_callback is register_abort_callback
    assert "clarifai_protocol is installed; penstock's names are put into it" in caplog.text


def test_an_installed_runner_protocol_that_does_not_work_is_told(
    site: Path, caplog: pytest.LogCaptureFixture
) -> None:
    package(site, "clarifai_protocol", __init__="import nothing_of_that_name")
    names.install(first=True)
    assert import_module("clarifai_protocol").get_item_id is get_request_id
    assert "clarifai_protocol is installed, but cannot be imported: No module" in caplog.text


def test_without_it_there_are_ours_alone() -> None:
    names.install(first=True)
    assert import_module("clarifai_protocol").get_item_id is get_request_id
    with pytest.raises(ModuleNotFoundError):
        import_module("clarifai_protocol.health")
