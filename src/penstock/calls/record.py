"""What is known of a call, as `GET /tasks/{id}` shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from penstock.calls.cut import rounded
from penstock.protocol.call import CallLog, State
from penstock.protocol.dispatch import TaskRecord
from penstock.protocol.messages import Form

if TYPE_CHECKING:
    from penstock.calls.live import Live


def record_of(live: Live) -> TaskRecord:
    """Return what is known of ``live``."""
    ending = live.log.ending
    error = ending.error if ending else None
    return TaskRecord(
        task_id=live.task_id,
        request_id=live.request_id,
        command=live.start.command,
        workflow_id=live.start.workflow_id,
        status=live.state.label,
        accepted_at=round(live.accepted_at, 3),
        started_at=rounded(live.started_at),
        finished_at=rounded(live.finished_at),
        next_seq=live.log.next_seq,
        first_seq=live.log.first_seq,
        result=_result(live.log, live.start.form),
        error=error.message if error else None,
        code=error.code.value if error else None,
        reason=ending.reason.value if ending and ending.reason else None,
        cancel=live.cut.record() if live.cut else None,
        metrics=live.metrics() if ending else None,
    )


def _result(log: CallLog, form: Form) -> msgspec.Raw | None:
    """Return the answer, or the last item of a stream, while it is kept."""
    if log.state is not State.COMPLETED:
        return None
    for seq in range(log.next_seq - 1, log.first_seq - 1, -1):
        data = form.data_of(log.read(seq - 1, 1)[0])
        if data is not None:
            return data.copy()
    return None
