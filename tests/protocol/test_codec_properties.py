"""NDJSON and SSE for any bytes, cut anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.errors import CallError, ErrorCode
from penstock.protocol.codec import NdjsonDecoder, SseDecoder, SseEvent, ndjson, sse

Decoder = NdjsonDecoder | SseDecoder
DECODERS = pytest.mark.parametrize("decoder", [NdjsonDecoder, SseDecoder])

frames = st.lists(st.builds(msgspec.json.encode, st.dictionaries(st.text(), st.text() | st.integers(0, 99))))
cuts = st.lists(st.integers(0, 400))
# Bytes that mean something come often, so that the rules meet each other.
junk = st.lists(
    st.sampled_from(
        [b"\n", b"\r", b"\r\n", b"\xef\xbb\xbf", b"data", b"data: ", b"id: ", b"event:", b":", b"\0"]
    )
    | st.binary(max_size=12)
).map(b"".join)


def pieces(text: bytes, at: list[int]) -> Iterator[bytes]:
    bounds = sorted({0, len(text), *(cut for cut in at if cut < len(text))})
    return (text[start:end] for start, end in pairwise(bounds))


def decode(decoder: Decoder, parts: Iterator[bytes]) -> tuple[list[bytes | SseEvent], bool | ErrorCode]:
    """All that comes out, and how it ends: whether incomplete, or the code of the error."""
    out: list[bytes | SseEvent] = []
    try:
        for part in parts:
            out += decoder.feed(part)
        return out, decoder.close()
    except CallError as error:
        return out, error.code


@given(frames, cuts)
def test_frames_come_back_from_ndjson_however_it_is_cut(lines: list[bytes], at: list[int]) -> None:
    assert decode(NdjsonDecoder(), pieces(ndjson(lines), at)) == (lines, False)


@given(frames, cuts, st.integers(0, 1000), st.sampled_from([b"\n", b"\r", b"\r\n"]))
def test_frames_come_back_from_sse_however_it_is_cut(
    lines: list[bytes], at: list[int], first: int, newline: bytes
) -> None:
    text = sse(first, lines).replace(b"\n", newline)
    expected = [SseEvent(line, str(first + index)) for index, line in enumerate(lines)]
    assert decode(SseDecoder(), pieces(text, at)) == (expected, False)


@DECODERS
@given(text=junk, at=cuts, limit=st.integers(0, 30))
@example(
    text=b"\xef\xbb\xbf:xxxxxxxxxx\n", at=[13], limit=3
)  # too long with its byte order mark, not without
def test_junk_gives_the_same_however_it_is_cut_and_no_other_error(
    decoder: type[Decoder], text: bytes, at: list[int], limit: int
) -> None:
    whole = decode(decoder(limit), iter([text]))
    assert decode(decoder(limit), pieces(text, at)) == whole
    assert whole[1] in (True, False, ErrorCode.TOO_LARGE)


@DECODERS
@given(size=st.integers(2, 200), over=st.sampled_from([-1, 0, 1]), at=cuts)
def test_the_limit_is_exact(decoder: type[Decoder], size: int, over: int, at: list[int]) -> None:
    line = b"x" * (size + over)
    text = ndjson([line]) if decoder is NdjsonDecoder else sse(0, [line])
    out, end = decode(decoder(size), pieces(text, at))
    assert (len(out), end) == ((0, ErrorCode.TOO_LARGE) if over > 0 else (1, False))
