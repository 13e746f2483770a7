"""NDJSON and SSE by example; tests/protocol/test_codec_properties.py has the rest."""

from __future__ import annotations

import time

import pytest

from penstock.errors import CallError, ErrorCode
from penstock.protocol.codec import (
    SSE_KEEPALIVE,
    NdjsonDecoder,
    SseDecoder,
    SseEvent,
    ndjson,
    ndjson_keepalive,
    sse,
)

LIMIT = 10


def test_ndjson_is_one_line_per_frame() -> None:
    assert ndjson([b'{"seq":0}', b'{"seq":1}']) == b'{"seq":0}\n{"seq":1}\n'
    assert ndjson([]) == b""


def test_sse_numbers_the_frames_and_wraps_the_same_bytes() -> None:
    assert sse(7, [b'{"a":1}', b'{"b":2}']) == b'id: 7\ndata: {"a":1}\n\nid: 8\ndata: {"b":2}\n\n'


def test_a_keepalive_line_has_no_number() -> None:
    assert ndjson_keepalive(1704067200.12345) == b'{"type":"keepalive","timestamp":1704067200.123}\n'


def test_an_sse_keepalive_is_no_event() -> None:
    decoder = SseDecoder()
    assert decoder.feed(SSE_KEEPALIVE) == []
    assert not decoder.close()


def test_ndjson_lines_may_be_cut_anywhere_and_blank_ones_are_left_out() -> None:
    decoder = NdjsonDecoder()
    assert decoder.feed(b'\n{"a"') == []
    assert decoder.feed(b':1}\n\r\n \n{"b":2}\n{') == [b'{"a":1}', b'{"b":2}']
    assert decoder.close()


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b" "])
def test_ndjson_that_ends_between_lines_is_whole(end: bytes) -> None:
    decoder = NdjsonDecoder()
    decoder.feed(b"{}\n" + end)
    assert not decoder.close()


@pytest.mark.parametrize("length", [LIMIT - 1, LIMIT])
def test_a_line_within_the_limit_passes(length: int) -> None:
    assert NdjsonDecoder(LIMIT).feed(b"x" * length + b"\n") == [b"x" * length]


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_beyond_the_limit_is_refused_for_good(end: bytes) -> None:
    decoder = NdjsonDecoder(LIMIT)
    for attempt in (
        lambda: decoder.feed(b"x" * (LIMIT + 1) + end),
        lambda: decoder.feed(b"\n"),
        decoder.close,
    ):
        with pytest.raises(CallError, match="longer than 10 bytes") as caught:
            attempt()
        assert caught.value.code is ErrorCode.TOO_LARGE


def test_lines_before_one_that_is_too_long_are_handed_out_first() -> None:
    decoder = NdjsonDecoder(LIMIT)
    assert decoder.feed(b"a\n" + b"x" * (LIMIT + 1) + b"\nb\n") == [b"a"]
    with pytest.raises(CallError):
        decoder.feed(b"")


@pytest.mark.parametrize("newline", [b"\n", b"\r", b"\r\n"])
def test_sse_lines_end_in_any_of_three_ways(newline: bytes) -> None:
    text = b"id: 4\ndata: one\ndata: two\n\ndata: three\n\n".replace(b"\n", newline)
    assert SseDecoder().feed(text) == [SseEvent(b"one\ntwo", "4"), SseEvent(b"three", "4")]


@pytest.mark.parametrize(
    ("text", "events"),
    [
        (b"data: x\n\n", [SseEvent(b"x")]),
        (b"data:x\n\n", [SseEvent(b"x")]),
        (b"data:  x\n\n", [SseEvent(b" x")]),
        (b"data\n\n", [SseEvent(b"")]),
        (b"data\ndata\n\n", [SseEvent(b"\n")]),
        (b"data:\n\n", [SseEvent(b"")]),
        (b": comment\n\n", []),
        (b"data: x\n:data: y\n\n", [SseEvent(b"x")]),
        (b"\xef\xbb\xbfdata: x\n\n", [SseEvent(b"x")]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: x\n\n", []),
        (b"event: tick\ndata: x\n\ndata: y\n\n", [SseEvent(b"x", "", "tick"), SseEvent(b"y")]),
        (b"event: tick\n\ndata: x\n\n", [SseEvent(b"x")]),
        (b"id: 1\n\ndata: x\n\n", [SseEvent(b"x", "1")]),
        (b"id: 1\ndata: x\n\nid\ndata: y\n\n", [SseEvent(b"x", "1"), SseEvent(b"y", "")]),
        (b"id: 1\nid: a\0b\ndata: x\n\n", [SseEvent(b"x", "1")]),
        (b"id: \xff\ndata: x\n\n", [SseEvent(b"x", "�")]),
        (b"retry: 10\nunknown: y\nData: z\ndata: x\n\n", [SseEvent(b"x")]),
        (b"data: x\x0by\x85z\xe2\x80\xa8\n\n", [SseEvent(b"x\x0by\x85z\xe2\x80\xa8")]),
        (b"data: x\n", []),
        (b"data: x", []),
    ],
)
def test_the_event_stream_rules(text: bytes, events: list[SseEvent]) -> None:
    assert SseDecoder().feed(text) == events
    decoder = SseDecoder()
    assert [event for byte in text for event in decoder.feed(bytes([byte]))] == events


@pytest.mark.parametrize(
    ("text", "incomplete"),
    [(b"", False), (b"data: x\n\n", False), (b"id: 3\n", False), (b"data: x\n", True), (b"da", True)],
)
def test_sse_close_tells_an_event_that_was_cut(text: bytes, incomplete: bool) -> None:
    decoder = SseDecoder()
    decoder.feed(text)
    assert decoder.close() is incomplete


@pytest.mark.parametrize("length", [LIMIT - 1, LIMIT])
def test_an_event_within_the_limit_passes(length: int) -> None:
    assert SseDecoder(LIMIT).feed(b"\xef\xbb\xbfdata: " + b"x" * length + b"\n\n") == [
        SseEvent(b"x" * length)
    ]


@pytest.mark.parametrize(
    "text",
    [
        b"data: " + b"x" * (LIMIT + 1) + b"\n\n",
        b"data: 12345\ndata: 12345\n\n",
        b"data\n" * (LIMIT + 2),
        b":" + b"x" * (LIMIT + 9),
        b":" + b"x" * (LIMIT + 9) + b"\n",
    ],
)
def test_an_event_beyond_the_limit_is_refused_for_good(text: bytes) -> None:
    decoder = SseDecoder(LIMIT)
    for attempt in (lambda: decoder.feed(text), lambda: decoder.feed(b"\n"), decoder.close):
        with pytest.raises(CallError, match="longer than 10 bytes") as caught:
            attempt()
        assert caught.value.code is ErrorCode.TOO_LARGE


def test_events_before_one_that_is_too_long_are_handed_out_first() -> None:
    decoder = SseDecoder(LIMIT)
    assert decoder.feed(b"data: a\n\ndata: " + b"x" * 30 + b"\n\ndata: b\n\n") == [SseEvent(b"a")]
    with pytest.raises(CallError):
        decoder.close()


@pytest.mark.parametrize("decoder", [NdjsonDecoder, SseDecoder])
def test_time_grows_with_the_bytes_and_not_with_their_square(
    decoder: type[NdjsonDecoder] | type[SseDecoder],
) -> None:
    def seconds(pieces: int) -> float:
        fresh, piece = decoder(), b"x" * 64
        began = time.perf_counter()
        for _ in range(pieces):
            fresh.feed(piece)
        return time.perf_counter() - began

    small, large = min(seconds(4_000) for _ in range(3)), min(seconds(64_000) for _ in range(3))
    assert large < 16 * small * 5  # the square would be 16 times 16
