"""What a behaviour test speaks to: a way in to an app, and a call as its caller sees it.

A frame is a dict in wire order.  What a handle has received is kept in ``received``, byte for byte, for the
log checker.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import anyio

from behaviour.raw_http import WAIT_S, Address, Departure, Reply, tells_nothing
from behaviour.seam import Watched
from penstock.errors import CallError
from penstock.protocol.dispatch import LOCAL, Caller
from penstock.runtime.app import App

Frame = dict[str, Any]
ANSWER_S = 60.0  # an answer comes when its call ends, whenever the test ends it; a test's own waits are short
TERMINAL = ("completed", "error", "cancelled")


class Refused(Exception):
    """The call was refused at admission; each way tells it in its own manner, with one content."""

    def __init__(self, envelope: Frame, status: int, retry_after: str | None) -> None:
        super().__init__(f"{status} {envelope}")
        self.envelope = envelope
        self.status = status
        self.retry_after = None if retry_after is None else int(retry_after)
        self.code: str = envelope["code"]
        self.error: str = envelope["error"]

    @classmethod
    def answered(cls, reply: Reply) -> Refused:
        """Read an HTTP refusal."""
        return cls(json.loads(reply.body), reply.status, reply.headers.get("retry-after"))

    @classmethod
    def raised(cls, error: CallError) -> Refused:
        """Read a refusal in process."""
        envelope = {"error": error.message, "code": error.code.value, "details": list(error.details)}
        after = None if error.retry_after_s is None else str(round(error.retry_after_s))
        return cls(envelope, error.http_status, after)


class Handle(ABC):
    """One call as its caller sees it."""

    def __init__(self, way: Way, request_id: str, task_id: str) -> None:
        self.way = way
        self.request_id = request_id
        self.task_id = task_id
        self.received: list[bytes] = []
        self.at_end = False  # the transport said so, in order

    @abstractmethod
    async def next_line(self) -> bytes | None:
        """Return the next frame's bytes; None at the end."""

    @abstractmethod
    async def drop(self, how: Departure = "fin") -> None:
        """Go away without a word about the call."""

    @abstractmethod
    async def aclose(self) -> None:
        """Give back what this handle holds."""

    async def next_frame(self) -> Frame | None:
        """Return the next frame; None at the end."""
        with anyio.fail_after(WAIT_S):
            line = await self.next_line()
        if line is None:
            self.at_end = True
            return None
        self.received.append(tells_nothing(line))
        return json.loads(line)

    async def frames(self) -> list[Frame]:
        """Return all that is still to come."""
        frames = []
        while (frame := await self.next_frame()) is not None:
            frames.append(frame)
        return frames

    async def until(self, status: str) -> Frame:
        """Return the next frame of this status, passing over those before it."""
        while (frame := await self.next_frame()) is not None:
            if frame["status"] == status:
                return frame
            assert frame["status"] not in TERMINAL, f"{status} was due, the call ended with {frame}"
        raise AssertionError(f"{status} was due, the frames ended")

    async def last(self) -> Frame:
        """Return the terminal frame, passing over those before it."""
        await self.frames()
        return json.loads(self.received[-1])

    async def cancel(self) -> str:
        """Cancel from elsewhere; return the outcome."""
        return await self.way.cancel(self.request_id)


class Way(ABC):
    """One way in to one served app.

    Args:
        dispatcher: What runs the calls.
        address: Where it is served over HTTP.
    """

    name: ClassVar[str]
    streams: ClassVar[bool] = True  # whether every frame reaches the caller
    departures: ClassVar[tuple[Departure, ...]] = ("fin", "rst", "half")

    def __init__(self, dispatcher: Watched, address: Address) -> None:
        self.dispatcher = dispatcher
        self.address = address
        self.app: App  # that runs the code
        self.handles: list[Handle] = []
        self.caller = LOCAL  # whom the dispatcher takes this for
        self.credentials: dict[str, str] = {}  # headers

    def of(self, token: str, caller: Caller) -> Way:
        """Return the same way in, for somebody with a key."""
        other = type(self)(self.dispatcher, self.address)
        other.caller, other.credentials = caller, {"authorization": f"Bearer {token}"}
        return other

    @abstractmethod
    async def open(
        self, command: str, input: Frame | None = None, *, is_stream: bool = True, **more: Any
    ) -> Handle:
        """Open a call; ``more`` are ``task_id``, ``workflow_id``, ``on_disconnect``, ``notes`` and
        ``timeout`` as on the wire.

        Raises:
            Refused: At admission.
        """

    @abstractmethod
    async def resume(self, call_id: str, after: int = -1) -> Handle:
        """Read a call's log behind frame ``after``, then what comes.

        Raises:
            Refused: There is no such call or frame.
        """

    @abstractmethod
    async def cancel(self, call_id: str) -> str:
        """Cancel a call; return the outcome.

        Raises:
            Refused: There is no such call.
        """

    @abstractmethod
    async def record(self, call_id: str) -> Frame:
        """Return what is known of a call.

        Raises:
            Refused: There is no such call.
        """

    @abstractmethod
    async def health(self) -> Frame:
        """Return what the readiness probe says."""

    async def ask(self, command: str, input: Frame | None = None, **more: Any) -> Frame:
        """Run a call to its end; return the terminal frame of a call that does not stream."""
        call = await self.open(command, input, is_stream=False, **more)
        frame = await call.last()
        await call.aclose()
        return frame

    async def watch(self, call: Handle) -> Handle:
        """Return what shows each frame of ``call`` as it comes: itself, or an onlooker where it cannot."""
        return call if self.streams else await self.resume(call.request_id)

    async def log(self, call_id: str) -> list[Frame]:
        """Return a call's whole log, up to its end."""
        replay = await self.resume(call_id)
        frames = await replay.frames()
        await replay.aclose()
        return frames

    async def aclose(self) -> None:
        """Leave every call that is still held."""
        for handle in self.handles:
            await handle.aclose()
