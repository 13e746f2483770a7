"""The link codec: whatever is written is read again, however it is cut; anything else is a typed error."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import CallError, ErrorCode, LocalProtocolError, RemoteProtocolError
from penstock.protocol.events import EngineReport, EventMetrics
from penstock.protocol.messages import CancelReason
from penstock.protocol.session import (
    HEAD,
    Cached,
    Cancel,
    Close,
    Configure,
    Credit,
    End,
    Failure,
    Hello,
    Items,
    Message,
    Open,
    Ping,
    Pong,
    Progress,
    SessionCodec,
    read_object,
)

_ids = st.text("0123456789abcdef", min_size=1, max_size=32)
_json = st.binary(max_size=200)
_sizes = st.integers(0, 2**40)
_names = st.lists(st.binary(min_size=8, max_size=32), max_size=5)
_failures = st.builds(
    Failure,
    code=st.sampled_from(ErrorCode),
    message=st.text(max_size=50),
    retryable=st.booleans(),
    details=_json,
    retry_after_s=st.none() | st.floats(0, 1e6),
)
_metrics = st.builds(EventMetrics, ttft_ms=st.floats(0, 1e9), throughput_tps=st.just(1.5), peak_mem_mb=_sizes)
messages = st.one_of(
    st.builds(
        Configure,
        name=st.text(),
        loader=st.text(),
        commands=st.lists(st.text()).map(tuple),
        arguments=st.dictionaries(st.text(), st.text()),
    ),
    st.builds(Hello, error=st.text()),
    st.builds(
        Open,
        request_id=_ids,
        task_id=_ids,
        command=st.text(),
        input=_json,
        window=_sizes,
        remaining_s=st.none() | st.floats(0, 1e6),
    ),
    st.builds(Cancel, request_id=_ids, reason=st.sampled_from(CancelReason)),
    st.builds(Credit, request_id=_ids, size=_sizes),
    st.builds(Items, request_id=_ids, items=st.lists(_json)),
    st.builds(Progress, request_id=_ids, about=_json),
    st.builds(
        End,
        request_id=_ids,
        answer=st.none() | _json,
        error=st.none() | _failures,
        reason=st.none() | st.sampled_from(CancelReason),
        report=st.none() | st.builds(EngineReport, metrics=st.none() | _metrics),
    ),
    st.builds(Ping, number=_sizes),
    st.builds(Pong, number=_sizes),
    st.builds(Cached, number=_sizes, anew=st.booleans(), gone=_names, held=_names),
    st.just(Close()),
)


def fed(codec: SessionCodec, pieces: list[bytes]) -> list[Message]:
    return [message for piece in pieces for message in codec.feed(piece)]


@given(st.lists(messages, max_size=8), st.data())
def test_what_is_written_is_read_again_however_it_is_cut(sent: list[Message], data: st.DataObject) -> None:
    wire = b"".join(SessionCodec().encode(message) for message in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=12)))
    pieces = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    codec = SessionCodec()
    assert fed(codec, pieces) == sent
    assert codec.buffered == 0


@given(messages)
def test_a_byte_at_a_time(message: Message) -> None:
    codec = SessionCodec()
    wire = codec.encode(message)
    *early, last = [codec.feed(wire[i : i + 1]) for i in range(len(wire))]
    assert not any(early)
    assert last == [message]


@given(st.lists(st.binary(max_size=64), max_size=6))
def test_junk_gives_messages_or_a_typed_error_and_nothing_else(pieces: list[bytes]) -> None:
    codec = SessionCodec(max_message=256)
    try:
        fed(codec, pieces)
    except RemoteProtocolError:
        assert codec.buffered == 0
    assert codec.buffered <= HEAD + 256 + 64


@given(messages, st.integers(0, 10_000), st.integers(1, 255))
def test_a_flipped_byte_gives_messages_or_a_typed_error(message: Message, place: int, flip: int) -> None:
    wire = bytearray(SessionCodec().encode(message))
    wire[place % len(wire)] ^= flip
    codec = SessionCodec(max_message=100_000)
    try:
        codec.feed(bytes(wire))
    except RemoteProtocolError:
        with pytest.raises(RemoteProtocolError):
            codec.feed(b"")


def body(data: bytes) -> bytes:
    return len(data).to_bytes(HEAD, "big") + data


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"\xc1",
        b"\x80",
        msgspec.msgpack.encode({"type": "nobody"}),
        msgspec.msgpack.encode({"type": "ping"}),
        msgspec.msgpack.encode({"type": "ping", "number": "one"}),
        msgspec.msgpack.encode({"type": "cancel", "request_id": "a", "reason": "whim"}),
        msgspec.msgpack.encode({"type": "cached", "number": 0, "held": [b"short"]}),
        msgspec.msgpack.encode({"type": "cached", "number": 0, "gone": [b"x" * 16] * 1025}),
        msgspec.msgpack.encode({"type": "ping", "number": 1}) + b"\x00",
        b"\x82\xa4type\xa4ping\xa1x" + b"\x91" * 100_000,
        b"\x82\xa4type\xa5items\xa5items\xdd\xff\xff\xff\xff",
        b"\x81\xa4type\xa2\xff\xfe",
    ],
    ids=[
        "empty",
        "invalid",
        "untagged",
        "unknown",
        "missing",
        "type",
        "enum",
        "short name",
        "many names",
        "trailing",
        "deep",
        "claims",
        "utf8",
    ],
)
def test_each_kind_of_junk_is_refused_and_stays_refused(junk: bytes) -> None:
    codec = SessionCodec()
    with pytest.raises(RemoteProtocolError):
        codec.feed(body(junk))
    with pytest.raises(RemoteProtocolError):
        codec.feed(codec.encode(Ping(number=1)))


def test_an_unknown_field_is_skipped() -> None:
    later = msgspec.msgpack.encode({"type": "ping", "number": 7, "later": {"a": [1]}})
    assert SessionCodec().feed(body(later)) == [Ping(number=7)]


def test_the_bound_is_exact_on_both_sides() -> None:
    message = Items(request_id="a", items=[b"x" * 100])
    size = len(SessionCodec().encode(message)) - HEAD
    wire = SessionCodec(size).encode(message)
    assert SessionCodec(size).feed(wire) == [message]
    with pytest.raises(LocalProtocolError, match=f"{size} bytes; at most {size - 1}"):
        SessionCodec(size - 1).encode(message)
    with pytest.raises(RemoteProtocolError, match="at most"):
        SessionCodec(size - 1).feed(wire[:HEAD])  # found before its body has come


def test_a_refused_message_leaves_the_link_good() -> None:
    codec = SessionCodec(64)
    with pytest.raises(LocalProtocolError):
        codec.encode(Items(request_id="a", items=[b"x" * 100]))
    assert codec.feed(codec.encode(Ping(number=1))) == [Ping(number=1)]


def test_an_error_arrives_as_it_was_raised() -> None:
    raised = CallError(
        "no room",
        ErrorCode.RESOURCE_EXHAUSTED,
        retryable=False,
        details=[{"path": ["input"]}],
        retry_after_s=2,
    )
    codec = SessionCodec()
    [end] = codec.feed(codec.encode(End(request_id="a", error=Failure.of(raised))))
    assert isinstance(end, End)
    assert end.error is not None
    arrived = end.error.error()
    assert vars(arrived) == vars(raised)


def test_an_error_with_details_that_are_no_json_still_arrives() -> None:
    assert Failure.of(CallError("odd", details=[{"at": object()}])).error().details == ()


@given(st.binary(max_size=64) | st.from_regex(rb"\{\"a\":\[?[0-9]{0,9}\]?\}", fullmatch=True))
def test_json_inside_a_message_is_an_object_or_a_typed_error(text: bytes) -> None:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if isinstance(found, dict):
        assert read_object(text) == found
    else:
        with pytest.raises(RemoteProtocolError, match="JSON"):
            read_object(text)
