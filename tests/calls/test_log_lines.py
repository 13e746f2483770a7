"""Log records as lines of JSON."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pytest

from penstock.calls import ambient
from penstock.calls.log_lines import JsonLines, writes_json


class Call(NamedTuple):
    request_id: str
    command: str
    metadata: Mapping[str, str] = {}


def written(*, process: str | None = None, **more: Any) -> dict[str, Any]:
    fields = {"name": "one", "levelno": logging.INFO, "levelname": "INFO", "msg": "a\n%s", "args": ("b",)}
    line = JsonLines(process).format(logging.makeLogRecord({**fields, "created": 0.25, **more}))
    assert "\n" not in line
    told: dict[str, Any] = json.loads(line)
    return told


@pytest.fixture
def handler() -> Iterator[logging.Handler]:
    """A handler of the root logger."""
    handler = logging.NullHandler()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


def test_what_is_not_known_is_left_out() -> None:
    plain = {
        "time": "1970-01-01T00:00:00.250+00:00",
        "level": "INFO",
        "logger": "one",
        "message": "a\nb",
    }
    assert written() == plain
    assert written(process="worker 1") == plain | {"process": "worker 1"}


def test_a_call_is_known_by_the_record_or_by_where_it_was_made() -> None:
    token = ambient.current.set(Call("around", "outer", {"x_request_id": "page-7"}))  # type: ignore[arg-type]
    try:
        around, given = written(), written(request_id="given", command="inner")
    finally:
        ambient.current.reset(token)
    assert (around["request_id"], around["command"]) == ("around", "outer")
    assert (given["request_id"], given["command"]) == ("given", "inner")
    assert around["x_request_id"] == "page-7"


def test_an_exception_has_its_traceback_on_the_same_line() -> None:
    try:
        raise ValueError("half a pair \ud800")
    except ValueError:
        told = written(exc_info=sys.exc_info())
    assert told["exception"].startswith("Traceback")
    assert "ValueError: half a pair" in told["exception"]


def test_whether_this_process_writes_them_is_known(handler: logging.Handler) -> None:
    assert not writes_json()
    handler.setFormatter(JsonLines())
    assert writes_json()
