"""A run in which everything happens that is counted, under a clock that is moved by hand."""

from __future__ import annotations

from itertools import count

from penstock.calls.admission import Admission
from penstock.calls.engine_cache import EngineCache
from penstock.calls.limits import CallLimits
from penstock.calls.live import Live
from penstock.calls.traffic import ELSEWHERE, Traffic
from penstock.errors import CallError, CommandError, ErrorCode
from penstock.observability.recorder import Recorder
from penstock.protocol.dispatch import LOCAL
from penstock.protocol.events import EngineReport, EventUsage
from penstock.protocol.messages import CancelReason, Start
from penstock.testing import FakeClock


class Run:
    """A recorder, and calls that it is told of.

    Args:
        commands: What is served, each with two permits and three places in its queue.
        workflows: What is served besides.
    """

    def __init__(self, commands: tuple[str, ...] = ("predict",), workflows: tuple[str, ...] = ()) -> None:
        self.clock = FakeClock()
        self.recorder = Recorder()
        self.caches = [EngineCache("llamacpp:fox", 64, monotonic=self.clock.monotonic)]
        self.traffic = Traffic()
        self.doors = {name: Admission(2, 3, name, self.clock.monotonic) for name in commands}
        self.recorder.serves(self.doors, workflows)
        self._ids = (f"{number:032x}" for number in count())

    def accept(self, command: str = "predict", workflow: str | None = None, grace_s: float = 5.0) -> Live:
        """Accept a call."""
        live = Live(
            Start(command="" if workflow else command, workflow_id=workflow, timeout_s=900),
            next(self._ids),
            LOCAL,
            clock=self.clock,
            limits=CallLimits(cancel_grace_s=grace_s),
            observer=self.recorder,
        )
        self.recorder.accepted(live)
        return live

    def start(self, command: str = "predict", workflow: str | None = None, grace_s: float = 5.0) -> Live:
        """Accept a call that starts at once."""
        live = self.accept(command, workflow, grace_s)
        live.mark_started()
        return live

    async def item(self, live: Live, after_s: float) -> None:
        """Have an item leave."""
        self.clock.advance(after_s)
        live.log.item({"chunk": "a"}, self.clock.wall())
        await live.breathe()

    def cancel(self, live: Live, reason: CancelReason, delivered_s: float, stopped_s: float) -> None:
        """Cancel a call whose code feels it, and stops, so many seconds later."""
        live.cancel(reason)
        self.clock.advance(delivered_s)
        live.mark_delivered()
        self.clock.advance((stopped_s - delivered_s) / 2)
        live.mark_confirmed()
        self.clock.advance((stopped_s - delivered_s) / 4)
        live.mark_acknowledged()
        self.clock.advance((stopped_s - delivered_s) / 4)
        live.end_cut()
        live.mark_stopped()


async def everything() -> Run:
    """Return a run of one command and one workflow, with each kind of thing in it."""
    run = Run(("predict",), ("tale",))
    await _stream(run)
    _fail(run)
    run.cancel(run.start(), CancelReason.CALLER, 1 / 512, 1 / 256)
    run.cancel(run.start(workflow="tale"), CancelReason.DISCONNECT, 1 / 64, 5 / 16)
    run.start(grace_s=2.0).cancel(CancelReason.DEADLINE)
    run.clock.advance(2.0)  # and its work never stops
    run.start()
    run.recorder.refused(CallError("no command 'x'", ErrorCode.NOT_FOUND), "x", is_workflow=False)
    run.recorder.refused(CallError("a: missing", ErrorCode.INVALID_ARGUMENT), "tale", is_workflow=True)
    _answer(run.traffic)
    run.recorder.turned(0.0078125)
    for _ in range(3):
        run.doors["predict"].enter()
    _generate(run)
    return run


def _answer(traffic: Traffic) -> None:
    """Have a server answer, refuse and be connected to."""
    traffic.answered("/v2/execute", 200)
    traffic.answered("/tasks/{id}", 404, "not_found")
    traffic.answered(ELSEWHERE, 401, "unauthenticated")
    traffic.answered("/ws", 101)
    traffic.answering["/v2/execute"] += 2
    traffic.sockets["/ws"] += 1
    traffic.messages["invalid_argument"] += 3


def _generate(run: Run) -> None:
    """Have generations run, wait, find something cached and evict something."""
    cache, door = run.caches[0], Admission(9, 9, "chat", run.clock.monotonic)
    for first in (0, 0, 100):
        need = cache.need("r", 50, 14, None)
        place = door.enter(need)
        need.allocate(64, range(first, first + 40))
        need.computed = True
        cache.told(40, 32 if first == 0 else 0)
        run.clock.advance(0.5)
        place.leave()
    for tokens in (16, 16, 64):
        need = cache.need("r", tokens - 1, 1, None)
        door.enter(need)
        if tokens == 16 and not cache.state().stats.handles:
            need.allocate(16)


async def _stream(run: Run) -> None:
    live = run.accept()
    run.clock.advance(0.25)
    live.mark_started()
    for after_s in (0.5, 0.03125, 0.0625):
        await run.item(live, after_s)
    live.report(EngineReport(usage=EventUsage(prompt_tokens=17, completion_tokens=4)))
    live.complete(has_answer=False)
    live.mark_stopped()


def _fail(run: Run) -> None:
    live = run.start()
    run.clock.advance(1.5)
    live.fail(CommandError("out of ideas"))
    live.mark_stopped()
