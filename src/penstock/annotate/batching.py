"""Frames collected until there are enough for one call, and whether a command takes several."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from penstock.annotate.asking import Asked, Asker, Shown
from penstock.annotate.errors import ConfigError
from penstock.annotate.settings import Model
from penstock.calls.tasks import TaskOwner


class Batch:
    """Frames that are asked about together, once they are all there."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.shown: list[Shown] = []
        self._begun = asyncio.Event()
        self._task: asyncio.Task[list[Asked]] | None = None

    def begin(self, asker: Asker, tasks: TaskOwner) -> None:
        """Ask."""
        self._task = tasks.start(asker.ask(self.shown, self.name), awaited=True)
        self.shown = []  # the pictures are gone when they were sent
        self._begun.set()

    async def answer(self, number: int) -> Asked:
        """Return what came of a frame."""
        await self._begun.wait()
        assert self._task is not None
        return (await self._task)[number]


class Batches:
    """Makes batches of the frames of one file after another.

    Args:
        asker: Asks about them.
        size: How many frames a batch has; the last of a file may have fewer.
        tasks: Own the calls.
    """

    def __init__(self, asker: Asker, size: int, tasks: TaskOwner) -> None:
        self._asker = asker
        self._size = size
        self._tasks = tasks
        self._open: Batch | None = None

    def add(self, shown: Shown, name: str) -> tuple[Batch, int]:
        """Add a frame of a file; returns the batch it is in, and its number there."""
        batch = self._open = self._open or Batch(name)
        batch.shown.append(shown)
        place = batch, len(batch.shown) - 1
        if len(batch.shown) == self._size:
            self.flush()
        return place

    def flush(self) -> None:
        """Nothing more comes of this file: ask about what is there."""
        if self._open is not None:
            self._open.begin(self._asker, self._tasks)
            self._open = None


def size_of(models: Sequence[Model]) -> int:
    """Return how many frames are asked about together."""
    return max((model.batch or 1 for model in models), default=1)


def _kind(form: Mapping[str, Any], schema: Mapping[str, Any]) -> object:
    """Return the type that a schema names, by way of its definitions; None: any."""
    name = str(form.get("$ref", "")).rpartition("/")[2]
    return schema.get("$defs", {}).get(name, form).get("type")


def check_parameter(model: Model, schema: Mapping[str, Any]) -> None:
    """Refuse to send one frame where a list of them is taken, or the other way round.

    Args:
        model: The command and how it is asked.
        schema: Of its input.

    Raises:
        ConfigError: Its parameter is of the other kind.
    """
    parameter = schema.get("properties", {}).get(model.param)
    if not isinstance(parameter, Mapping):
        return  # what takes anything says nothing of it
    kinds = {_kind(one, schema) for one in parameter.get("anyOf", (parameter,))}
    if model.batch is not None and "array" not in kinds and None not in kinds:
        raise ConfigError(
            f"{model.command} takes one frame as {model.param!r}, not a list of them; ask it without "
            "--batch, or give the parameter the type list[Picture]"
        )
    if model.batch is None and kinds == {"array"}:
        raise ConfigError(
            f"{model.command} takes a list of frames as {model.param!r}; say how many at once: --batch 8"
        )
