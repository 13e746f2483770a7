"""The first messages of a runner and a gateway: bounded, versioned, and a typed error for everything else."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import CallError, ErrorCode, RemoteProtocolError
from penstock.protocol.runners import (
    MAX_HELLO,
    MAX_LABELS,
    MAX_OFFERS,
    MAX_WORKFLOWS,
    VERSION,
    Offer,
    OfferedTimeouts,
    OfferedWorkflow,
    Refusal,
    RunnerHello,
    Welcome,
    check_name,
    encode_hello,
    labels_match,
    read_hello,
    read_reply,
)

SESSION = "0123456789abcdef" * 2
names = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
commands = st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_.-]{0,63}\Z")
seconds = st.floats(0.001, 604_800)
texts = st.text(max_size=20)
offers = st.builds(
    Offer,
    name=commands,
    description=texts,
    streaming=st.booleans(),
    input_schema=st.dictionaries(texts, st.integers(-(2**31), 2**31) | texts, max_size=3),
    takes_stream=st.booleans(),
    concurrency=st.integers(1, 1_000_000),
    queue=st.integers(0, 1_000_000),
    idempotent=st.booleans(),
    timeouts=st.builds(OfferedTimeouts, queue_s=st.none() | seconds, total_s=st.none() | seconds),
    disconnect_s=st.none() | st.just(-1.0) | seconds,
)
workflows = st.builds(
    OfferedWorkflow, name=names, spec=st.dictionaries(texts, texts | st.lists(texts, max_size=3), max_size=3)
)
hellos = st.builds(
    RunnerHello,
    software=texts,
    name=names,
    session=st.sampled_from(["", SESSION]),
    received=st.integers(0, 2**53),
    offers=st.lists(offers, max_size=4, unique_by=lambda offer: offer.name),
    capacity=st.integers(1, 1_000_000),
    labels=st.dictionaries(texts, texts, max_size=4),
    workflows=st.lists(workflows, max_size=3, unique_by=lambda workflow: workflow.name),
    default_command=texts,
)
welcomes = st.builds(
    Welcome,
    session=st.just(SESSION),
    received=st.integers(0, 2**53),
    heartbeat_s=seconds,
    resume_s=seconds,
    max_message=st.integers(1024, 2**31),
)
refusals = st.builds(Refusal, code=st.sampled_from(list(ErrorCode)), message=texts)


@given(hellos)
def test_a_hello_is_read_as_it_was_written(hello: RunnerHello) -> None:
    assert read_hello(encode_hello(hello)) == hello


@given(welcomes | refusals)
def test_a_reply_is_read_as_it_was_written(reply: Welcome | Refusal) -> None:
    assert read_reply(encode_hello(reply)) == reply


@given(st.binary(max_size=200))
def test_any_bytes_give_a_hello_or_a_typed_error(data: bytes) -> None:
    for read in (read_hello, read_reply):
        with suppress(RemoteProtocolError, CallError):
            read(data)


@given(data=st.data(), hello=hellos)
def test_a_damaged_hello_gives_a_hello_or_a_typed_error(data: st.DataObject, hello: RunnerHello) -> None:
    body = bytearray(encode_hello(hello))
    index = data.draw(st.integers(0, len(body) - 1))
    cut = data.draw(st.integers(0, len(body)))
    body[index] = data.draw(st.integers(0, 255))
    for damaged in (bytes(body), bytes(body[:cut])):
        with suppress(RemoteProtocolError, CallError):
            read_hello(damaged)


DEEP: dict[str, Any] = {}
for _ in range(500):
    DEEP = {"items": DEEP}


def packed(**fields: Any) -> bytes:
    return msgspec.msgpack.encode({"type": "runnerhello", "name": "one", **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"name": ""},
        {"name": "a b"},
        {"name": "a" * 65},
        {"name": "a\n"},
        {"name": 3},
        {"session": "0" * 31},
        {"session": SESSION.upper()},
        {"received": -1},
        {"capacity": 0},
        {"labels": {str(number): "" for number in range(MAX_LABELS + 1)}},
        {"labels": {"a": "b" * 257}},
        {"offers": [{"name": "a"}, {"name": "a"}]},
        {"offers": [{"name": f"a{number}"} for number in range(MAX_OFFERS + 1)]},
        {"offers": [{"name": "a", "concurrency": 0}]},
        {"offers": [{"name": "a", "queue": -1}]},
        {"offers": [{"name": "a", "timeouts": {"gap_s": 0.0}}]},
        {"offers": [{"name": "a", "timeouts": {"gap_s": float("nan")}}]},
        {"offers": [{"name": "a", "disconnect_s": -2.0}]},
        {"offers": [{"name": "a", "description": "b" * 4097}]},
        {"offers": [{"name": "a", "input_schema": {"b": msgspec.msgpack.Ext(1, b"c")}}]},
        {"offers": [{"name": "a", "item_schema": DEEP}]},
        {"workflows": [{"name": "a", "spec": {}}, {"name": "a", "spec": {}}]},
        {"workflows": [{"name": f"a{number}", "spec": {}} for number in range(MAX_WORKFLOWS + 1)]},
        {"workflows": [{"name": "a"}]},
        {"workflows": [{"name": "-a", "spec": {}}]},
        {"workflows": [{"name": "a", "spec": []}]},
        {"workflows": [{"name": "a", "spec": {"steps": [DEEP]}}]},
        {"workflows": [{"name": "a", "spec": {"output": msgspec.msgpack.Ext(1, b"c")}}]},
        {"default_command": 3},
        {"type": "hello"},
        {"type": None},
    ],
)
def test_what_does_not_fit_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        read_hello(packed(**fields))


def test_unknown_fields_are_passed_over() -> None:
    assert read_hello(packed(news=1, offers=[{"name": "a", "more": {}}])) == RunnerHello(
        name="one", offers=[Offer(name="a")]
    )


GOLDEN = (  # a hello as runners that know of workflows write it, and as those before them did
    b"\x85\xa4type\xabrunnerhello\xa4name\xa3one\xa6offers\x91\x81\xa4name\xa7predict"
    b"\xa9workflows\x91\x82\xa4name\xa4tale\xa4spec\x81\xa5steps\x91"
    b"\x82\xa2id\xa1a\xa7command\xa7predict\xafdefault_command\xa7predict"
)
GOLDEN_BEFORE = b"\x83\xa4type\xabrunnerhello\xa4name\xa3one\xa6offers\x91\x81\xa4name\xa7predict"
TALE = OfferedWorkflow(name="tale", spec={"steps": [{"id": "a", "command": "predict"}]})


def test_a_hello_is_written_byte_for_byte_as_ever() -> None:
    before = RunnerHello(name="one", offers=[Offer(name="predict")])
    assert encode_hello(before) == GOLDEN_BEFORE
    assert read_hello(GOLDEN_BEFORE) == before
    now = msgspec.structs.replace(before, workflows=[TALE], default_command="predict")
    assert encode_hello(now) == GOLDEN
    assert read_hello(GOLDEN) == now


def test_a_gateway_that_knows_of_no_workflows_reads_the_rest() -> None:
    class Before(msgspec.Struct, tag_field="type", tag="runnerhello"):
        name: str
        offers: list[Offer]

    assert msgspec.msgpack.decode(GOLDEN, type=Before).offers == [Offer(name="predict")]


@pytest.mark.parametrize("version", [0, VERSION + 1])
def test_another_version_is_told_whatever_else_it_says(version: int) -> None:
    for read, kind in ((read_hello, "runnerhello"), (read_reply, "welcome")):
        with pytest.raises(CallError, match=f"speaks version {version}") as refused:
            read(msgspec.msgpack.encode({"type": kind, "version": version, "name": [7]}))
        assert refused.value.code is ErrorCode.FAILED_PRECONDITION


def test_a_large_hello_is_not_even_looked_at() -> None:
    with pytest.raises(RemoteProtocolError, match=f"at most {MAX_HELLO}"):
        read_hello(b"\x00" * (MAX_HELLO + 1))


def test_deep_nesting_is_a_typed_error() -> None:
    with pytest.raises(RemoteProtocolError):
        read_hello(b"\x81\xa4name" + b"\x91" * 100_000 + b"\x00")


def test_a_refusal_is_an_error_of_its_code() -> None:
    error = Refusal(code=ErrorCode.CONFLICT, message="there is one").error()
    assert (error.code, error.message) == (ErrorCode.CONFLICT, "there is one")


def test_a_name_is_checked_where_it_is_chosen() -> None:
    assert check_name("gpu-1") == "gpu-1"
    for wrong in ("", "a b", "-a", "a" * 65, "a\n"):
        with pytest.raises(ValueError, match="1 to 64"):
            check_name(wrong)


def test_labels_match_where_all_that_are_asked_for_are_there() -> None:
    given = {"gpu": "a100", "zone": "x"}
    assert labels_match({}, given)
    assert labels_match({"gpu": "a100"}, given)
    assert not labels_match({"gpu": "a100", "zone": "y"}, given)
    assert not labels_match({"rack": "1"}, given)
