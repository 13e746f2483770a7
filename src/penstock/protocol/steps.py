"""Frames of a workflow: they carry ``workflow_id`` in the place of ``command``, and a step's frames its id
(WIRE.md section 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from penstock.protocol.messages import FrameWriter, Note, WireForm


class StepItem(NamedTuple):
    """An item of a step's call: JSON, as that call wrote it."""

    step: str
    value: bytes


class WorkflowWriter(FrameWriter):
    """Writes the frames of one workflow.

    Args:
        workflow_id: Which one.
        task_id: The caller's name for the call.
        request_id: Ours, 32 hex digits; shown in the first frame only.
    """

    __slots__ = ("_tails", "_task", "_workflow")

    def __init__(self, workflow_id: str, task_id: str, request_id: str) -> None:
        super().__init__(WireForm.V2, workflow_id, task_id, request_id)
        self._workflow = b',"version":"v2","workflow_id":' + _encode(workflow_id)
        self._task = b',"task_id":%b,"seq":' % _encode(task_id)
        self._tail = self._workflow + self._task
        self._tails: dict[str, bytes] = {}

    def item(self, data: object, seq: int, now: float) -> bytes:
        """Write a step's item; ``data`` is a ``StepItem``."""
        assert isinstance(data, StepItem)
        self._tick(now)
        return b"".join((_ITEM_HEAD, data.value, self._stamp, self._tail_of(data.step), b"%d}" % seq))

    def note(self, kind: Note, about: Mapping[str, Any], seq: int, now: float) -> bytes:
        """Write a step's note; ``about`` has its ``step``, and its ``data`` or ``position``."""
        self._tick(now)
        head = {"data": about["data"]} if "data" in about else {}
        tail = {"position": about["position"]} if "position" in about else {}
        return self._joined(kind, head, self._tail_of(about["step"]), seq, tail)

    def _tail_of(self, step: str) -> bytes:
        tail = self._tails.get(step)
        if tail is None:
            tail = self._tails[step] = b'%b,"step":%b%b' % (self._workflow, _encode(step), self._task)
        return tail


_encode = msgspec.json.Encoder().encode
_ITEM_HEAD = b'{"type":"task","status":"streaming","data":'
