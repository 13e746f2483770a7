"""Whether a model wants more work now: it is asked before each stream but those of the first slot."""

from __future__ import annotations

import logging

import msgspec

from penstock.errors import CallError
from penstock.protocol.dispatch import Caller
from penstock.protocol.messages import CancelReason, OnDisconnect, Start
from penstock.runtime.app import App

COMMAND = "check_admission"
"""Of a project: it takes nothing, and gives whether more work is wanted."""
ANSWER_S = 5.0

_log = logging.getLogger("penstock.runner")


class _Seen(msgspec.Struct):
    status: str
    data: object = None


class Admission:
    """Asks.

    Args:
        app: Runs the command, if it has it; it is started.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._asks = COMMAND in app.commands
        self._told = False

    async def granted(self) -> bool:
        """Whether a further item may come; one that cannot be asked does not refuse."""
        if not self._asks:
            return True
        try:
            return await self._answer() is not False
        except CallError as error:
            if not self._told:
                self._told = True
                _log.warning("%s does not answer (%s): work is taken", COMMAND, error.message)
            return True

    async def _answer(self) -> object:
        start = Start(command=COMMAND, input=b"{}", on_disconnect=OnDisconnect(0.0), timeout_s=ANSWER_S)
        live = await self._app.open(start, Caller())
        try:
            async with live.reader() as reader:
                async for batch in reader:
                    for line in batch.lines:
                        seen = _read(line)
                        if seen.status == "completed":
                            return seen.data
            ending = live.ending
            raise CallError("it gave no answer") if ending is None or ending.error is None else ending.error
        finally:
            live.cancel(CancelReason.DISCONNECT)  # nothing, if it has ended
            self._app.forget(live)  # it is asked again and again


_read = msgspec.json.Decoder(_Seen).decode
