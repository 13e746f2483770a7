"""Log records as text and as JSON: one that cannot be taken for another."""

from __future__ import annotations

import json
import logging
import sys
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from penstock.calls.log_lines import JsonLines, TextLines


def record(message: str, error: str | None = None, **more: str) -> logging.LogRecord:
    info = None
    if error is not None:
        try:
            raise ValueError(error)
        except ValueError:
            info = sys.exc_info()
    made = logging.LogRecord("penstock.x", logging.INFO, "f", 1, "%s", (message,), info)
    made.__dict__.update(more)
    return made


@given(st.text(), st.none() | st.text())
def test_only_a_first_line_begins_a_record(message: str, error: str | None) -> None:
    for form in (TextLines(), TextLines("worker %d")):
        first, *more = form.format(record(message, error)).split("\n")
        assert " INFO " in first
        assert all(line.startswith("    ") for line in more)
        shown = "".join((first, *more))
        assert not [each for each in shown if unicodedata.category(each) == "Cc" and each != "\t"]
        assert len((first + "".join(more)).splitlines()) <= 1


@given(st.text(), st.none() | st.text())
def test_a_line_of_json_is_one_line(message: str, error: str | None) -> None:
    line = JsonLines("w").format(record(message, error, request_id="9" * 32))
    assert len(line.splitlines()) == 1
    told = json.loads(line)
    assert told.get("message", "") == message
    assert (told["request_id"], told["process"]) == ("9" * 32, "w")
    assert ("ValueError" in told.get("exception", "")) is (error is not None)


def test_a_record_of_a_call_names_it_once() -> None:
    of_call = {"request_id": "9" * 32}
    assert TextLines().format(record("stuck", **of_call)).endswith(f": stuck (call {'9' * 32})")
    assert TextLines().format(record(f"call {'9' * 32} is stuck", **of_call)).count("9" * 32) == 1
    assert TextLines().format(record("a\nb", **of_call)).endswith(f": a (call {'9' * 32})\n    b")
    assert "(call" not in TextLines().format(record("no call's"))
