"""What servers say of their faults, in every shape they have, and what a caller reads of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engines.upstream import faults
from penstock.engines.upstream.cleaning import cleaned
from penstock.engines.upstream.faults import Told
from penstock.errors import ErrorCode


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"error": {"message": "m", "type": "t", "code": None}}, Told("m", "t")),
        ({"error": {"message": "m", "type": "t", "code": "c", "param": "p"}}, Told("m", "c")),
        ({"error": {"message": "m", "type": "value_error", "code": "c"}}, Told("m", "value_error")),
        ({"error": {"message": "m", "type": "t", "code": 400}}, Told("m", "t", 400)),
        ({"error": {"message": "m", "type": "t", "code": "503"}}, Told("m", "t", 503)),
        ({"error": {"message": "m", "code": 7}}, Told("m")),
        ({"error": {"message": ["m"]}}, Told()),
        ({"error": "text"}, Told("text")),
        ({"object": "error", "message": "m", "type": "t", "code": 400}, Told("m", "t", 400)),
        ({"type": "error", "error": {"type": "t", "message": "m"}}, Told("m", "t")),
        ({"error": None}, None),
        ({"error": {}}, None),
        ({"choices": []}, None),
        ([1], None),
        ("error", None),
        (None, None),
    ],
)  # fmt: skip
def test_error_objects_are_found_in_every_shape(data: object, told: Told | None) -> None:
    assert faults.told_by(data) == told
    assert faults.told_in(json.dumps(data).encode()) == told


def test_a_body_that_is_no_json_tells_nothing() -> None:
    assert faults.told_in(b"<html>") is None
    assert faults.told_in(b'"\xff"') is None
    assert faults.told_in(b'{"error": ' + b"[" * 100_000) is None


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("invalid_request_error", 400),
        ("BadRequestError", 400),
        ("context_length_exceeded", 400),
        ("rate_limit_error", 429),
        ("overloaded_error", 529),
        ("authentication_error", 401),
        ("unavailable_error", 503),
        ("InternalServerError", 500),
        ("", 500),
    ],
)
def test_the_name_of_a_fault_stands_for_a_status(kind: str, status: int) -> None:
    assert faults.status_of(Told("", kind)) == status
    assert faults.status_of(Told("", kind, 418)) == 418


def test_a_caller_reads_the_server_s_words_only_where_they_help() -> None:
    told = Told("max_tokens must be at least 1")
    assert faults.of_status("e", 400, told).message == "e refused the request: max_tokens must be at least 1"
    assert (
        faults.of_status("e", 401, Told("Incorrect API key")).message == "e does not accept this server's key"
    )
    assert faults.of_status("e", 500, Told("Traceback")).message == "e failed"


@given(st.integers(min_value=100, max_value=999), st.text())
def test_every_status_is_an_error_of_the_table(status: int, said: str) -> None:
    error = faults.of_status("e", status, Told(said))
    assert isinstance(error.code, ErrorCode)
    assert error.message.startswith("e ")
    assert len(error.message) < 500


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        ("-1", 0.0),
        ("Thu, 01 Jan 1970 00:00:20 GMT", 10.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("soon", None),
        ("inf", None),
        ("nan", None),
        ("1e99", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert faults.retry_after(value, now=10.0) == seconds


@given(st.text())
def test_any_retry_after_is_read_or_left(value: str) -> None:
    seconds = faults.retry_after(value, now=0.0)
    assert seconds is None or 0 <= seconds < 1e9


@pytest.mark.parametrize(
    "private",
    [
        "http://10.0.0.7:8000/v1/chat",
        "10.0.0.7:8000",
        "10.0.0.7",
        "[fe80::1]:8000",
        "vllm-7.internal.example:8000",
        "/srv/models/llama.gguf",
        "/v1/completions",
        "/srv",
        "~/models/x.bin",
        "../models/x.bin",
        "C:\\models\\x.bin",
        "sk-proj-abcdefgh1234",
        "sk-ab***wxyz",
        "Bearer abcdef",
        "hf_abcdefghijkl",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
    ],
)
def test_addresses_paths_and_keys_are_left_out(private: str) -> None:
    said = cleaned(f"it failed at {private} somehow")
    assert private not in said
    assert said.startswith("it failed at ")
    assert said.endswith(" somehow")


@pytest.mark.parametrize(
    "said",
    [
        "request (5001 tokens) exceeds the available context size (1024 tokens), try increasing it",
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.",
        "'temperature' must be in [0, 2], got 3.5 and/or top_p; n >= 1: see the manual",
        "tools[0].function.parameters: 'type' is a required property",
    ],
)
def test_what_helps_is_left_in(said: str) -> None:
    assert cleaned(said) == said


@given(st.text(), st.text(min_size=4))
def test_a_secret_never_shows(around: str, secret: str) -> None:
    plain = " ".join(secret.split())
    if plain and plain not in "…":
        assert plain not in cleaned(f"{around[:20]}{plain}", [plain]).replace("…", "")


def test_long_texts_are_cut() -> None:
    assert len(cleaned("word " * 100_000)) == 301


def test_a_long_line_of_anything_takes_no_time() -> None:
    for unit in ("a.", "a:", "/a", "1.", "[:", "a1", "~/"):
        cleaned(unit * 500_000)


def of(data: Any) -> ErrorCode:
    told = faults.told_by(data)
    assert told is not None
    return faults.of_told("e", told).code


def test_an_error_inside_a_stream_has_the_code_of_its_name() -> None:
    assert of({"error": {"message": "", "type": "overloaded_error"}}) is ErrorCode.UNAVAILABLE
    assert of({"error": "text"}) is ErrorCode.UPSTREAM_FAILED
