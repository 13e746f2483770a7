"""One target for each parser of bytes that strangers send: it raises what is documented, or it is wrong.

A target takes any bytes.  The first of them decide how the rest is cut, where a parser takes pieces.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from penstock.errors import CallError, ErrorCode, ManifestError, RemoteProtocolError
from penstock.protocol.call import Call
from penstock.protocol.codec import NdjsonDecoder, SseDecoder
from penstock.protocol.depth import MAX_DEPTH, check_depth
from penstock.protocol.messages import WireForm, decode_frame
from penstock.protocol.reliable import ReliableSession
from penstock.protocol.requests import (
    CallBody,
    read_body,
    read_default_body,
    read_message,
    read_workflow_body,
)
from penstock.protocol.runners import encode_hello, read_hello, read_reply
from penstock.protocol.session import End, Open, Ping, SessionCodec, read_object
from penstock.runtime.conditions import Condition
from penstock.runtime.manifest import load_manifest
from penstock.runtime.parameters import InputSchema, Parameter
from penstock.runtime.references import Scope, Template
from penstock.runtime.workflow_input import WorkflowInput
from penstock.server.framing import Boundary

Target = Callable[[bytes], None]

SMALL = 48  # limit of what decoders take here, so that it is met often
REFUSED = {ErrorCode.INVALID_ARGUMENT, ErrorCode.TOO_LARGE}
SCOPE = Scope({"a": {"b": [1, "zwei", None]}, "t": "x"}, {"s": {"text": "y"}, "skipped": None})


def only(codes: Iterable[ErrorCode], parse: Callable[[], object]) -> Any:
    """Return what ``parse`` gives; None where it refuses with one of these codes."""
    try:
        return parse()
    except CallError as error:
        refusal = error
    assert refusal.code in codes, refusal.code
    assert refusal.message
    refusal.message.encode()
    return None


def cut(data: bytes) -> tuple[bytes, list[bytes]]:
    """Return the bytes behind the first two, and the same in pieces as those two say."""
    head, text = data[:2], data[2:]
    sizes = [1 + head[0] % 9, 1 + head[1] % 31] if len(head) == 2 else [1, 1]
    pieces, begin = [], 0
    while begin < len(text):
        size = sizes[len(pieces) % 2]
        pieces.append(text[begin : begin + size])
        begin += size
    return text, pieces


def decoded(decoder: NdjsonDecoder | SseDecoder, pieces: Iterable[bytes]) -> tuple[list[Any], object]:
    """Return all that comes out, and how it ends."""
    out: list[Any] = []
    try:
        for piece in pieces:
            out += decoder.feed(piece)
        return out, decoder.close()
    except CallError as error:
        refusal = error
    assert refusal.code is ErrorCode.TOO_LARGE
    assert only({ErrorCode.TOO_LARGE}, lambda: decoder.feed(b"more")) is None
    return out, refusal.code


def ndjson(data: bytes) -> None:
    """Lines are the same however they are cut, and none is too long."""
    text, pieces = cut(data)
    lines, end = decoded(NdjsonDecoder(SMALL), pieces)
    assert (lines, end) == decoded(NdjsonDecoder(SMALL), [text])
    assert all(0 < len(line) <= SMALL and b"\n" not in line for line in lines)


def sse(data: bytes) -> None:
    """Events are the same however they are cut, and none is too long."""
    text, pieces = cut(data)
    events, end = decoded(SseDecoder(SMALL), pieces)
    assert (events, end) == decoded(SseDecoder(SMALL), [text])
    assert all(len(event.data) <= SMALL for event in events)


def body(data: bytes) -> None:
    """A body becomes a request, or is refused."""
    for read, form in (
        (read_body, WireForm.V2),
        (read_default_body, WireForm.V1),
        (read_workflow_body, WireForm.V2),
    ):
        fields = only(REFUSED, lambda read=read: read(data))  # type: ignore[misc]
        if fields is not None:
            only(REFUSED, lambda fields=fields, form=form: fields.start(form))  # type: ignore[misc]


def message(data: bytes) -> None:
    """A WebSocket message, as text or bytes, is understood or refused."""
    for given in (data, data.decode("utf-8", "surrogateescape"), data.decode("latin-1")):
        read = only(REFUSED, lambda given=given: read_message(given))  # type: ignore[misc]
        if isinstance(read, CallBody):
            only(REFUSED, lambda read=read: read.start(WireForm.V2))  # type: ignore[misc]


def session(data: bytes) -> None:
    """Messages of a link are the same however they are cut, and can be written again."""
    text, pieces = cut(data)
    messages, fault = _messages(pieces)
    if not fault:
        assert repr(messages) == repr(_messages([text])[0])  # NaN is not itself
    for found in messages:
        again = SessionCodec().feed(SessionCodec().encode(found))
        assert repr(again) == repr([found])
        _carried(found)


def _messages(pieces: Iterable[bytes]) -> tuple[list[Any], bool]:
    codec, out = SessionCodec(max_message=4096), []
    for piece in pieces:
        try:
            out += codec.feed(piece)
        except RemoteProtocolError:
            return out, True
    return out, False


def _carried(found: object) -> None:
    with suppress(RemoteProtocolError):
        if isinstance(found, End) and found.error is not None:
            found.error.error()
        if isinstance(found, Open):
            read_object(found.input)


def hello(data: bytes) -> None:
    """The first messages of a runner and a gateway are read, and can be written again, or are refused."""
    for read in (read_hello, read_reply):
        with suppress(RemoteProtocolError):
            found = only({ErrorCode.FAILED_PRECONDITION}, lambda read=read: read(data))  # type: ignore[misc]
            if found is not None:
                assert repr(read(encode_hello(found))) == repr(found)  # NaN is not itself


def parcel(data: bytes) -> None:
    """A parcel is taken, or refused and nothing changed; taken twice it says nothing new."""
    end = ReliableSession()
    for number in range(3):
        end.push(Ping(number=number))
    end.parcel()
    before = (end.received, end.unacknowledged)
    try:
        end.feed(data)
    except RemoteProtocolError:
        assert (end.received, end.unacknowledged) == before
        return
    assert end.received >= before[0]
    assert end.unacknowledged <= before[1]
    assert end.feed(data) == []


def frame(data: bytes) -> None:
    """A frame is read or refused, and a call takes its step or refuses it and stays as it was."""
    call = Call()
    for line in data.split(b"\n"):
        read = only({ErrorCode.INVALID_ARGUMENT}, lambda line=line: decode_frame(line))  # type: ignore[misc]
        if read is None:
            continue
        before = call.state, call.next_seq
        try:
            call.observe(read)
        except RemoteProtocolError:
            assert (call.state, call.next_seq) == before


def depth(data: bytes) -> None:
    """Of JSON exactly what is nested too deeply is refused."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        only({ErrorCode.TOO_LARGE}, lambda: check_depth(data))
        return
    if data[:1] in b"\xef\xff\xfe\0" or data[1:2] == b"\0":
        return  # json.loads takes UTF-16 and UTF-32 too
    refused = False
    try:
        check_depth(data)
    except CallError:
        refused = True
    assert refused is (_depth(value) > MAX_DEPTH)


def _depth(value: object) -> int:
    if not isinstance(value, (dict, list)):
        return 0
    return 1 + max(map(_depth, value.values() if isinstance(value, dict) else value), default=0)


def manifest(data: bytes) -> None:
    """A manifest is read, or refused with the file and what is wrong."""
    path = _FOLDER / "manifest.yml"
    path.write_bytes(data)
    said = str(path)
    try:
        load_manifest(path)
    except ManifestError as error:
        said = str(error)
    assert str(path) in said


_FOLDER = Path(tempfile.mkdtemp(prefix="penstock-fuzz-"))


def references(data: bytes) -> None:
    """Text with references and conditions is understood, or refused; what it looks up is there or not."""
    text = data.decode("utf-8", "replace")
    codes = {ErrorCode.INVALID_ARGUMENT, ErrorCode.COMMAND_FAILED}
    for parse, use in ((Template.parse, Template.resolve), (Condition.parse, Condition.holds)):
        try:
            read: Any = parse(text)
        except ValueError:
            continue
        if all(found.step in (None, *SCOPE.steps) for found in read.references()):
            only(codes, lambda use=use, read=read: use(read, SCOPE))  # type: ignore[misc]


def framing(data: bytes) -> None:
    """However bytes are cut, a part ends wherever a head may end, and a sized body is not overrun."""
    size, (text, pieces) = sum(data[:1]), cut(data[1:])
    for parts in (pieces, [text]):
        boundary = Boundary()
        assert set(_heads(text)) <= set(_ends(boundary, parts))
        boundary.sized(size)
        assert sum(boundary.cut(part, 0) for part in parts) == min(size, len(text))


def _heads(text: bytes) -> Iterator[int]:
    """Yield where empty lines end."""
    end = 0
    while (found := text.find(b"\r\n\r\n", end)) >= 0:
        yield (end := found + 4)


def _ends(boundary: Boundary, parts: Iterable[bytes]) -> Iterator[int]:
    """Yield where parts end."""
    taken = 0
    for part in parts:
        begin = 0
        while begin < len(part):
            end = boundary.cut(part, begin)
            assert begin < end <= len(part)
            begin = end
            yield taken + end
        taken += len(part)


def command_input(data: bytes) -> None:
    """The input of a command and of a workflow is taken or refused, with the place of each fault."""
    for check in (_COMMAND.validate, _WORKFLOW.validate):
        only({ErrorCode.INVALID_ARGUMENT}, lambda check=check: check(data))  # type: ignore[misc]


def _parameters() -> Iterator[Parameter]:
    hints: Mapping[str, Any] = {
        "a": int,
        "b": list[dict[str, float]],
        "c": bytes,
        "d": "str | None",
        "e": Any,
    }
    for name, hint in hints.items():
        yield Parameter(name, str | None if hint == "str | None" else hint, None, is_state=False)


_COMMAND = InputSchema(tuple(_parameters()), "command 'fuzz'")
_WORKFLOW = WorkflowInput(
    {
        "type": "object",
        "properties": {"n": {"type": "integer", "default": 1}, "tree": {"$ref": "#/$defs/tree"}},
        "$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "uniqueItems": True}},
    }
)

TARGETS: Mapping[str, Target] = {
    found.__name__: found
    for found in (
        ndjson,
        sse,
        body,
        message,
        session,
        hello,
        parcel,
        frame,
        depth,
        manifest,
        references,
        framing,
        command_input,
    )
}
