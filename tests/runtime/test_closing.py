"""What is opened with an app is closed with it."""

from __future__ import annotations

import logging

import pytest

from penstock import App, AuthoringError, Runtime
from penstock.runtime.manifest import Manifest

pytestmark = pytest.mark.anyio


class Closable:
    def __init__(self, closed: list[str]) -> None:
        self._closed = closed

    def close(self) -> None:
        self._closed.append("state")


async def test_callbacks_run_once_after_the_state_is_closed_the_last_one_first() -> None:
    closed: list[str] = []
    rt = Runtime(Manifest(startup=("initialize",)))  # type: ignore[arg-type]  # a name stands for a step

    async def second() -> None:
        closed.append("second")

    rt.command("initialize")(lambda: {"engine": Closable(closed)})
    rt.on_close(lambda: closed.append("first"))
    rt.on_close(second)
    app = App(rt)
    async with app:
        assert closed == []
    await app.aclose()
    assert closed == ["state", "second", "first"]


async def test_a_callback_that_fails_is_logged_and_keeps_no_other_from_running(
    caplog: pytest.LogCaptureFixture,
) -> None:
    closed: list[str] = []
    rt = Runtime()

    def broken() -> None:
        raise ValueError("it is stuck")

    rt.on_close(lambda: closed.append("first"))
    rt.on_close(broken)
    with caplog.at_level(logging.ERROR, logger="penstock"):
        async with App(rt):
            pass
    assert closed == ["first"]
    assert "it is stuck" in caplog.text


async def test_what_a_failed_start_has_opened_is_closed() -> None:
    closed: list[str] = []
    rt = Runtime(Manifest(startup=("initialize",)))  # type: ignore[arg-type]
    rt.on_close(lambda: closed.append("runtime"))

    @rt.command("initialize")
    def initialize() -> None:
        raise ValueError("no model here")

    with pytest.raises(AuthoringError, match="initialize"):
        await App(lambda _: rt).start()
    assert closed == ["runtime"]
