"""The tasks of annotation of one replica."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from penstock.calls.clock import Clock
from penstock.gateway.clarifai.annotation_form import AnnotationForm
from penstock.gateway.clarifai.assignments import Assignment, Assignments
from penstock.gateway.clarifai.forms import Request
from penstock.gateway.clarifai.lanes import Item
from penstock.gateway.clarifai.sinks import TaskSink
from penstock.gateway.clarifai.streams import Finished
from penstock.protocol.session import End, Open

LAST_WORDS_S = 5.0  # how long what a task posted last may be on its way


class Owner(Protocol):
    """The replica."""

    def send_cancel(self, item_id: str) -> bool: ...
    def output_of(self, request_id: str, text: bytes) -> None: ...
    def end_call(self, request_id: str, end: End) -> None: ...
    def finish(self, request_id: str, how: Finished) -> None: ...
    def lose_call(self, request_id: str, why: str) -> None: ...


class ReplicaTasks:
    """Keeps them from their opening to the end of their calls.

    Args:
        owner: The replica.
        assignments: Those of all replicas.
        clock: Tells the time.
        began: Told the call of a task whose item is over, as the task goes on without a stream.
    """

    def __init__(
        self, owner: Owner, assignments: Assignments, clock: Clock, began: Callable[[str], None]
    ) -> None:
        self._owner = owner
        self._assignments = assignments
        self._clock = clock
        self._told_began = began
        self._tasks: dict[str, Assignment] = {}  # by the call's id

    @property
    def begun(self) -> int:
        """How many go on without a stream."""
        return sum(task.begun for task in self._tasks.values())

    def assign(self, opening: Open, form: AnnotationForm) -> Item:
        """Return the item of a new task.

        Raises:
            CallError: ``invalid_argument``.
        """
        name = opening.request_id
        task = self._assignments.open(self._owner, name, opening.window)
        self._tasks[name] = task
        requests: list[Request] = [form.request(opening.input, task.task_id, task.token)]
        sink = TaskSink(self._owner, name, partial(self._began, name))
        return Item(form, opening.input, requests, name, opening.window, sink, task.item_id, primary=True)

    def credit(self, request_id: str, size: int) -> None:
        """So many bytes of a call's items have been taken."""
        if request_id in self._tasks:
            self._tasks[request_id].credit(size)

    def cancel(self, request_id: str) -> bool:
        """Cancel a task whose item is over; returns whether there is one."""
        task = self._tasks.get(request_id)
        if task is None or not task.begun:
            return False
        # A replica that misses it learns it from its next post, which is refused.
        self._owner.send_cancel(task.item_id)
        return True

    def forget(self, request_id: str) -> bool:
        """A call is over; returns whether it was one of a task that had begun."""
        task = self._tasks.pop(request_id, None)
        if task is not None:
            self._assignments.close(task)
        return task is not None and task.begun

    def drop(self) -> None:
        """The replica is gone."""
        for request_id, task in tuple(self._tasks.items()):
            self._owner.send_cancel(task.item_id)
            self.forget(request_id)

    def said_to_run(self, items: frozenset[str]) -> None:
        """The main thread has named the tasks that it does; others ended without a word, or it is on its
        way."""
        for request_id, task in tuple(self._tasks.items()):
            if task.begun and task.item_id not in items:
                self._clock.call_later(LAST_WORDS_S, partial(self._lose, request_id, task))

    def _began(self, request_id: str) -> None:
        if request_id in self._tasks:
            self._tasks[request_id].begun = True
            self._told_began(request_id)

    def _lose(self, request_id: str, task: Assignment) -> None:
        if self._tasks.get(request_id) is task:
            self._owner.lose_call(request_id, "its task ended without a word")
