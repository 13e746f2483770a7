"""Who watches calls without a say in them: metrics, traces."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.calls.admission import Admission
    from penstock.calls.live import Live
    from penstock.errors import CallError


class Observer:
    """Is told what happens to calls, on their event loop; this one makes nothing of it.

    What is told per frame would be too much: ``released`` comes once for all items that leave together.  All
    times are in seconds.  Nothing here may raise or wait.
    """

    def serves(self, commands: Mapping[str, Admission], workflows: Collection[str]) -> None:
        """The project is loaded, and serves these: no call told of later is of another name."""

    def refused(self, error: CallError, target: str, *, is_workflow: bool) -> None:
        """A call was refused at admission; ``target`` is what it asked for, and may be nothing that is
        served."""

    def accepted(self, live: Live) -> None:
        """A call was accepted."""

    def started(self, live: Live, waited_s: float) -> None:
        """Its author's code starts."""

    def first_item(self, live: Live, after_s: float) -> None:
        """Its first item leaves, so long after it was accepted."""

    def released(self, live: Live, gap_s: float) -> None:
        """Further items leave, so long after those before."""

    def cancelled(self, live: Live) -> None:
        """Its cancel was asked for; ``live.cancel_reason`` says by what."""

    def delivered(self, live: Live, after_s: float) -> None:
        """Its author's code has felt the cancel."""

    def acknowledged(self, live: Live, after_s: float) -> None:
        """Its author's code has left, so long after the cancel."""

    def confirmed(self, live: Live, after_s: float) -> None:
        """The engine below has confirmed that its work has stopped, so long after the cancel."""

    def ended(self, live: Live, total_s: float) -> None:
        """Its terminal frame is in the log; ``live.ending`` says which."""

    def stuck(self, live: Live) -> None:
        """Its work runs on, long after its cancel."""

    def stopped(self, live: Live, after_s: float | None) -> None:
        """Its work has really stopped and its permit is free; how long after its cancel, if there was one."""

    def close(self) -> None:
        """Nothing more will be told; this may wait until all is where it belongs."""

    def turned(self, after_s: float) -> None:
        """The event loop has come to what was put into its queue so long before."""


NOBODY = Observer()
