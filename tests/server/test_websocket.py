"""Every message of the protocol over a real socket, and every message that is none."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest

from penstock.calls.limits import CallLimits
from penstock.protocol.dispatch import LOCAL
from server.conftest import Serve, Served, Told
from server.peer import BINARY, CLOSE, TEXT, WAIT_S, Peer, frame

pytestmark = pytest.mark.anyio


def statuses(messages: list[dict[str, Any]]) -> list[str]:
    return [message["status"] for message in messages]


# -- running calls -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/ws", "/v2/ws"])
async def test_either_path_speaks_both_versions(served: Served, path: str) -> None:
    async with Peer.open(served.address, path) as peer:
        peer.send("task", task_id="one", is_stream=True, input={"n": 1})
        first = await peer.until("completed")
        peer.send("command", command="tick", task_id="two", is_stream=True, input={"n": 1})
        second = await peer.until("completed")
    assert statuses(first) == statuses(second) == ["accepted", "streaming", "completed"]
    assert [list(frame) for frame in first] == [
        ["type", "status", "timestamp", "task_id", "seq", "request_id"],
        ["type", "status", "data", "timestamp", "task_id", "seq"],
        ["type", "status", "timestamp", "task_id", "seq", "metrics"],
    ]
    assert {(frame["version"], frame["command"], frame["task_id"]) for frame in second} == {
        ("v2", "tick", "two")
    }


async def test_there_is_nothing_at_other_paths(served: Served) -> None:
    async with Peer.open(served.address, "/ws/") as peer:
        assert peer.status == 403


async def test_a_call_that_does_not_stream_sends_only_its_terminal_frame(served: Served) -> None:
    async with Peer.open(served.address) as peer:
        peer.send("command", command="tick", task_id="a", input={"n": 3})
        peer.send("command", command="fail", task_id="b", is_stream=False)
        peer.send("command", command="echo", task_id="c", input={"text": "fox"})
        got = {frame["task_id"]: frame for frame in [await peer.receive() for _ in range(3)]}
        assert await peer.until_pong() == []
    assert got["a"]["data"] == {"n": 2}
    assert (got["b"]["status"], got["b"]["code"]) == ("error", "command_failed")
    assert "secret" not in got["b"]["error"]
    assert got["c"]["data"] == {"text": "fox"}


async def test_many_calls_share_a_socket(served: Served) -> None:
    async with Peer.open(served.address) as peer:
        for number in range(100):
            peer.send("command", command="tick", task_id=f"t{number}", is_stream=True, input={"n": number})
        seen: dict[str, list[dict[str, Any]]] = {f"t{number}": [] for number in range(100)}
        while any(not frames or frames[-1]["status"] != "completed" for frames in seen.values()):
            frame = await peer.receive()
            seen[frame["task_id"]].append(frame)
    for number in range(100):
        frames = seen[f"t{number}"]
        assert [frame["seq"] for frame in frames] == list(range(number + 2))
        assert [frame["data"]["n"] for frame in frames[1:-1]] == list(range(number))


async def test_a_ping_is_answered(served: Served) -> None:
    async with Peer.open(served.address) as peer:
        peer.send("ping")
        pong = await peer.receive()
    assert list(pong) == ["type", "timestamp"]
    assert pong["type"] == "pong"


async def test_a_workflow_is_looked_for(served: Served) -> None:
    async with Peer.open(served.address) as peer:
        peer.send("workflow", workflow_id="story", task_id="w")
        peer.send("workflow", task_id="v")
        unknown, nameless = await peer.receive(), await peer.receive()
    assert (unknown["task_id"], unknown["code"]) == ("w", "not_found")
    assert (nameless["task_id"], nameless["code"]) == ("v", "invalid_argument")


async def test_the_correlation_id_is_the_messages_or_the_sockets(served: Served) -> None:
    async with Peer.open(served.address, headers="x-request-id: of-the-socket\r\n") as peer:
        peer.send("command", command="echo", task_id="a", input={"text": ""})
        peer.send("command", command="echo", task_id="b", input={"text": ""}, correlation_id="own\n\x00")
        await peer.receive(), await peer.receive()
    assert served.app.find("a", LOCAL).caller.correlation_id == "of-the-socket"
    assert served.app.find("b", LOCAL).caller.correlation_id == "own"


# -- refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"command": "tok"}, "not_found"),
        ({}, "invalid_argument"),
        ({"command": "echo"}, "invalid_argument"),
        ({"command": "echo", "input": {"text": "a", "txt": "b"}}, "invalid_argument"),
        ({"command": "echo", "input": [1]}, "invalid_argument"),
        ({"command": "echo", "input": {"text": "a"}, "timeout": -1}, "invalid_argument"),
        ({"command": "echo", "input": {"text": "a"}, "on_disconnect": "stay"}, "invalid_argument"),
        ({"command": "echo", "input": {"text": "a"}, "is_stream": "yes"}, "invalid_argument"),
    ],
)
async def test_a_refused_call_gets_an_error_with_its_name(
    served: Served, fields: dict[str, Any], code: str
) -> None:
    async with Peer.open(served.address) as peer:
        peer.send("command", task_id="mine", **fields)
        error = await peer.receive()
        assert await peer.until_pong() == []
    assert (error["type"], error["status"], error["task_id"], error["code"]) == (
        "task",
        "error",
        "mine",
        code,
    )
    assert "seq" not in error
    assert served.app.tasks(LOCAL) == []


async def test_a_name_in_use_is_refused_and_the_call_that_has_it_goes_on(served: Served, told: Told) -> None:
    async with Peer.open(served.address) as peer:
        for _ in range(2):
            peer.send("command", command="hang", task_id="mine", is_stream=True)
        got = [await peer.receive() for _ in range(3)]
        told.go.set()
        got += await peer.until("completed")
    refusal = next(frame for frame in got if frame.get("code") == "conflict")
    assert refusal["task_id"] == "mine"
    got.remove(refusal)
    assert statuses(got) == ["accepted", "streaming", "streaming", "completed"]


DEEP = "[" * 100_000
GARBAGE = [
    "",
    " ",
    "{",
    "null",
    "5",
    '"text"',
    "[]",
    '[{"type":"ping"}]',
    "{}",
    '{"type":null}',
    '{"type":5}',
    '{"type":"nope"}',
    '{"type":"Ping"}',
    '{"type":"cancel"}',
    '{"type":"cancel","task_id":5}',
    '{"type":"resume","task_id":"a","after":"1"}',
    '{"type":"resume","task_id":"a","after":1.5}',
    f'{{"type":"resume","task_id":"a","after":{"9" * 5000}}}',
    '{"type":"input","task_id":"a"}',
    '{"type":"command","command":"echo","input":{"text":NaN}}',
    '{"type":"command","command":"echo","input":{"text":"\\ud800"}}',
    '{"type":"command","command":"echo","task_id":"a b","input":{"text":"a"}}',
    f'{{"type":"{"x" * 100_000}"}}',
    f'{{"type":"cancel","task_id":"{"x" * 100_000}"}}',
    '{"type":"ping"}{"type":"ping"}',
    "GET / HTTP/1.1",
    "\u202e\x00\x1b[31m",
]


TOO_DEEP = [
    f'{{"type":"command","command":"echo","input":{{"text":{DEEP}',
    f'{{"type":"command","command":"echo","input":{{"text":{"[" * 1000}{"]" * 1000}}}}}',
    f'{{"type":"command","command":"echo","on_disconnect":{"[" * 5000}{"]" * 5000}}}',
    f'{{"type":"ping","more":{DEEP}',
]
BAD = [*((text, "invalid_argument") for text in GARBAGE), *((text, "too_large") for text in TOO_DEEP)]


@pytest.mark.parametrize(("text", "code"), BAD, ids=range(len(BAD)))
async def test_a_bad_message_is_answered_and_the_socket_stays(served: Served, text: str, code: str) -> None:
    async with Peer.open(served.address) as peer:
        peer.text(text)
        error = await peer.receive()
        assert await peer.until_pong() == []
    assert (error["type"], error["status"], error["code"]) == ("task", "error", code)
    assert len(error["error"]) < 500
    assert len(error.get("task_id", "")) <= 128


async def test_a_bad_message_that_names_a_call_is_answered_with_the_name(served: Served) -> None:
    async with Peer.open(served.address) as peer:
        peer.send("resume", task_id="mine", after=[])
        assert (await peer.receive())["task_id"] == "mine"


async def test_a_binary_message_is_answered_and_the_socket_stays(served: Served) -> None:
    async with Peer.open(served.address) as peer:
        peer.write(frame(BINARY, b'{"type":"ping"}'))
        error = await peer.receive()
        assert await peer.until_pong() == []
    assert error["code"] == "invalid_argument"
    assert "binary" in error["error"]


@pytest.mark.parametrize("garbage", [b"\xff", b'{"type":"ping","a":"\xc3("}', b'{"type":"ping"}\xed\xa0\x80'])
async def test_text_that_is_not_utf8_closes_the_socket_and_is_not_logged(
    served: Served, caplog: pytest.LogCaptureFixture, garbage: bytes
) -> None:
    caplog.set_level(logging.DEBUG)
    async with Peer.open(served.address) as peer:
        peer.text(b'{"type":"ping","a":"canary"}')
        assert (await peer.receive())["type"] == "pong"
        peer.text(b"canary" + garbage)
        assert await peer.ended() == 1007
    assert "canary" not in caplog.text
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET /ws HTTP/1.1\r\nupgrade: websocket\r\n\r\n", 1002),  # accepted once is accepted
        (b"\x81\x02{}", 1002),  # not masked
        (frame(3, b""), 1002),
        (frame(0, b"more of nothing"), 1002),
        (frame(TEXT, b"{", fin=False) + frame(TEXT, b"}"), 1002),
        (frame(CLOSE, b"\x03"), 1002),
    ],
)
async def test_what_is_no_websocket_closes_the_socket(
    served: Served, caplog: pytest.LogCaptureFixture, data: bytes, code: int
) -> None:
    async with Peer.open(served.address) as peer:
        peer.write(data)
        assert await peer.ended() == code
    assert caplog.records == []


# -- cancel, resume, detach, input -------------------------------------------------------------------


async def test_a_cancel_is_answered_by_the_calls_own_frame(served: Served, told: Told) -> None:
    async with Peer.open(served.address) as peer:
        peer.send("command", command="hang", task_id="mine", is_stream=True)
        await peer.until("streaming")
        peer.send("cancel", task_id="mine")
        got = await peer.until("cancelled")
        assert await peer.until_pong() == []
        assert (len(got), got[0]["type"], got[0]["reason"]) == (1, "task", "caller")
        peer.send("cancel", task_id="mine")
        assert await peer.receive() == {"type": "cancel", "status": "already_finished", "task_id": "mine"}


@pytest.mark.parametrize("name", ["nobody", "no/such", "0" * 32, "", "\u2028"])
async def test_a_cancel_of_an_unknown_call_says_so(served: Served, name: str) -> None:
    async with Peer.open(served.address) as peer:
        peer.send("cancel", task_id=name)
        assert await peer.receive() == {"type": "cancel", "status": "not_found", "task_id": name}


async def test_a_call_that_is_read_elsewhere_can_be_cancelled(served: Served) -> None:
    async with Peer.open(served.address) as reader, Peer.open(served.address) as other:
        reader.send("command", command="hang", task_id="mine", is_stream=True)
        await reader.until("streaming")
        other.send("cancel", task_id="mine")
        assert await other.receive() == {"type": "cancel", "status": "cancelled", "task_id": "mine"}
        assert await other.until_pong() == []
        assert statuses(await reader.until("cancelled")) == ["cancelled"]


@pytest.mark.parametrize("after", [-1, 0, 2])
async def test_resume_reads_a_live_call_from_any_frame_on(served: Served, told: Told, after: int) -> None:
    async with Peer.open(served.address) as first, Peer.open(served.address) as second:
        first.send("command", command="hang", task_id="mine", is_stream=True)
        await first.until("streaming")
        told.go.set()
        await first.until("completed")
        second.send("resume", task_id="mine", after=after)
        got = await second.until("completed")
    assert [frame["seq"] for frame in got] == list(range(after + 1, 4))


async def test_resume_behind_the_end_says_that_nothing_follows(served: Served) -> None:
    async with Peer.open(served.address) as peer:
        peer.send("command", command="tick", task_id="mine", is_stream=True)
        await peer.until("completed")
        peer.send("resume", task_id="mine", after=3)
        assert await peer.receive() == {"type": "resume", "status": "already_finished", "task_id": "mine"}
        assert await peer.until_pong() == []


async def test_two_readers_on_one_socket_each_get_every_frame_in_order(served: Served, told: Told) -> None:
    async with Peer.open(served.address) as peer:
        peer.send("command", command="hang", task_id="mine", is_stream=True)
        await peer.until("streaming")
        peer.send("resume", task_id="mine")
        again = await peer.until("streaming")
        assert [frame["seq"] for frame in again] == [0, 1]
        told.go.set()
        rest = await peer.until("completed") + await peer.until("completed")
    assert sorted(frame["seq"] for frame in rest) == [2, 2, 3, 3]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"task_id": "nobody"}, "not_found"),
        ({"task_id": "mine", "after": 9}, "invalid_argument"),
        ({"task_id": "mine", "after": -2}, "invalid_argument"),
        ({"task_id": "old", "after": 0}, "gone"),
    ],
)
async def test_a_resume_that_cannot_be_is_refused(served: Served, fields: dict[str, Any], code: str) -> None:
    async with Peer.open(served.address) as peer:
        for name in ("mine", "old"):
            peer.send("command", command="tick", task_id=name, is_stream=True)
            await peer.until("completed")
        served.app.find("old", LOCAL).log.trim(200)
        peer.send("resume", **fields)
        error = await peer.receive()
        assert await peer.until_pong() == []
    assert (error["status"], error["code"], error["task_id"]) == ("error", code, fields["task_id"])
    assert (code == "gone") is ("first_seq" in error)


@pytest.mark.parametrize("policy", ["cancel", "continue"])
async def test_detach_leaves_one_call_and_its_policy_decides(served: Served, told: Told, policy: str) -> None:
    async with Peer.open(served.address) as peer:
        peer.send("command", command="hang", task_id="mine", is_stream=True, on_disconnect=policy)
        await peer.until("streaming")
        peer.send("detach", task_id="mine")
        assert await peer.receive() == {"type": "detach", "status": "detached", "task_id": "mine"}
        told.go.set()
        peer.send("resume", task_id="mine", after=1)
        got = await peer.until("cancelled" if policy == "cancel" else "completed")
        assert [frame["seq"] for frame in got] == list(range(2, 2 + len(got)))
        if policy == "cancel":
            assert got[-1]["reason"] == "disconnect"


async def test_nothing_of_a_call_follows_detached(served: Served) -> None:
    async with Peer.open(served.address) as peer:
        peer.send("command", command="flood", task_id="mine", is_stream=True)
        await peer.until("streaming")
        peer.send("detach", task_id="mine")
        while (await peer.receive())["type"] != "detach":
            pass
        assert await peer.until_pong() == []


async def test_detach_from_what_is_not_read_here_is_answered_too(served: Served) -> None:
    async with Peer.open(served.address) as peer:
        peer.send("detach", task_id="nobody")
        assert await peer.receive() == {"type": "detach", "status": "detached", "task_id": "nobody"}


async def test_input_reaches_a_command_that_takes_a_stream(served: Served) -> None:
    async with Peer.open(served.address) as peer:
        peer.send("command", command="upper", task_id="mine", is_stream=True, input={"words": ["a"]})
        peer.send("input", task_id="mine", data="b")
        peer.send("input", task_id="mine", data=5)
        peer.send("input", task_id="nobody", data="c")
        peer.send("input", task_id="mine", data="d")
        peer.send("input_end", task_id="mine")
        peer.send("input_end", task_id="mine")
        got = await peer.until("completed")
        peer.send("input", task_id="mine", data="late")
        late = await peer.receive()
    frames = [frame for frame in got if "seq" in frame]
    errors = [(frame["task_id"], frame["code"]) for frame in got if "seq" not in frame]
    assert [frame["data"] for frame in frames[1:-1]] == ["A", "B", "D"]
    assert errors[:2] == [("mine", "invalid_argument"), ("nobody", "not_found")]
    assert late["code"] == "failed_precondition"


async def test_input_that_came_with_the_request_may_be_all_there_is(served: Served) -> None:
    async with Peer.open(served.address) as peer:
        fields = {"command": "upper", "is_stream": True, "input": {"words": ["a"]}, "more_input": False}
        peer.send("command", task_id="mine", **fields)
        assert statuses(await peer.until("completed")) == ["accepted", "streaming", "completed"]


async def test_input_to_a_command_that_takes_none_is_refused(served: Served) -> None:
    async with Peer.open(served.address) as peer:
        peer.send("command", command="hang", task_id="mine", is_stream=True)
        await peer.until("streaming")
        peer.send("input", task_id="mine", data="a")
        assert (await peer.receive())["code"] == "invalid_argument"
        assert await peer.until_pong() == []


async def test_accepted_comes_before_what_later_messages_are_answered(served: Served) -> None:
    async with Peer.open(served.address) as peer:
        peer.send("command", command="upper", task_id="mine", is_stream=True, input={"words": []})
        peer.send("input", task_id="mine", data=5)
        got = [await peer.receive(), await peer.receive()]
    assert statuses(got) == ["accepted", "error"]


async def test_an_overrun_reader_is_told_and_the_socket_stays(serve: Serve) -> None:
    async with (
        serve(CallLimits(window=20_000, kept_per_call=20_000)) as served,
        Peer.open(served.address) as peer,
    ):
        peer.send("command", command="tick", task_id="mine", is_stream=True, input={"n": 2000})
        await peer.until("completed")
        first = served.app.find("mine", LOCAL).log.first_seq
        assert first > 0
        peer.send("resume", task_id="mine", after=0)
        error = await peer.receive()
        assert (error["code"], error["first_seq"]) == ("gone", first)
        peer.send("resume", task_id="mine", after=first - 1)
        with anyio.fail_after(WAIT_S):
            assert (await peer.until("completed"))[0]["seq"] == first
