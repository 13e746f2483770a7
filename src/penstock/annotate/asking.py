"""Asking the commands about a frame, and what becomes of those that fail."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import anyio

from penstock.annotate.answers import Adapter, Answer
from penstock.annotate.clarifai.answers import ClarifaiAdapter
from penstock.annotate.errors import AnnotateError, AnswerError
from penstock.annotate.media.messages import Picture
from penstock.annotate.settings import Model, Settings
from penstock.client import AsyncClient
from penstock.errors import CallCancelled, CallError, ErrorCode, PenstockError

RETRIES = 6
FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0
CANCEL_S = 1.0  # how long a server may take to be told

# What a frame does to a command; anything else would befall the next frame as well.
_OF_THE_FRAME = frozenset(
    (
        ErrorCode.COMMAND_FAILED,
        ErrorCode.INVALID_OUTPUT,
        ErrorCode.DEADLINE_EXCEEDED,
        ErrorCode.TOO_LARGE,
        ErrorCode.UPSTREAM_FAILED,
    )
)


class CommandFailed(AnnotateError):
    """A command failed on a frame; the text names both."""


class Asked(NamedTuple):
    """What came of a frame: an answer, or the code and text of a failure; ``fatal`` if it ends the run."""

    answer: Answer | None
    code: str = ""
    message: str = ""
    fatal: CommandFailed | AnswerError | None = None


class Asker:
    """Asks about frames.

    Args:
        client: Reaches the commands.
        settings: Which they are.
        timeout_s: Budget of one call, in seconds.
        retries: How often a call is made again that may succeed then.
    """

    def __init__(
        self, client: AsyncClient, settings: Settings, *, timeout_s: float | None, retries: int = RETRIES
    ) -> None:
        self._client = client
        self._models = settings.models
        self._adapters = [_adapter(model, number) for number, model in enumerate(settings.models)]
        self._skip = settings.on_error == "skip"
        self._form = settings.form
        self._timeout_s = timeout_s
        self._retries = retries

    async def ask(self, picture: Picture, data: bytearray, name: str) -> Asked:
        """Return what the commands say of a frame."""
        place = f"{name}, frame {picture.place.frame}"
        try:
            answers = await self._all(picture, str(data, "ascii"), name, place)
        except AnswerError as error:
            return Asked(None, "invalid_answer", str(error), None if self._skip else error)
        except CallError as error:
            skipped = self._skip and error.code in _OF_THE_FRAME
            hint = "; send frames as jpeg or png" if error.code is ErrorCode.TOO_LARGE else ""
            fatal = None if skipped else CommandFailed(f"{place}: {error.message} ({error.code.value}){hint}")
            return Asked(None, error.code.value, error.message, fatal)
        except PenstockError as error:
            return Asked(None, "", str(error), CommandFailed(f"{place}: {error}"))
        if len(answers) == 1:
            return Asked(answers[0])
        regions = [region for answer in answers for region in answer.regions]
        return Asked(Answer(regions, tuple(tag for answer in answers for tag in answer.tags)))

    async def _all(self, picture: Picture, text: str, name: str, place: str) -> Sequence[Answer]:
        if len(self._models) == 1:
            return [await self._one(0, picture, text, name, place)]
        numbers = range(len(self._models))
        # Their order is that of the models, whichever answers first.
        found: list[Answer | None] = [None for _ in numbers]

        async def ask(number: int) -> None:
            found[number] = await self._one(number, picture, text, name, place)

        failures: list[PenstockError] = []

        async def guarded(number: int) -> None:
            try:
                await ask(number)
            except PenstockError as error:
                failures.append(error)

        async with anyio.create_task_group() as group:
            for number in numbers:
                group.start_soon(guarded, number)
        if failures:
            raise failures[0]
        return [answer for answer in found if answer is not None]

    async def _one(self, number: int, picture: Picture, text: str, name: str, place: str) -> Answer:
        model = self._models[number]
        answer = await self._call(model, self._input(model, picture, text, name))
        return self._adapters[number].read(answer, picture.w, picture.h, place)

    def _input(self, model: Model, picture: Picture, text: str, name: str) -> dict[str, Any]:
        if model.style != "penstock":
            return {**model.params, model.param: {"base64": text}}
        if model.plain:
            return {**model.params, model.param: text}
        fields = {
            "data": text,
            "form": self._form,
            "width": picture.w,
            "height": picture.h,
            "name": name,
            "frame": picture.place.frame,
            "t": picture.place.t,
        }
        return {**model.params, model.param: fields}

    async def _call(self, model: Model, given: dict[str, Any]) -> Any:
        wait_s = FIRST_WAIT_S
        for left in range(self._retries, -1, -1):
            try:
                return await self._run(model.command, given)
            except CallCancelled as error:
                raise CallError(str(error), ErrorCode.CANCELLED) from error
            except CallError as error:
                if not left or not error.retryable or error.code in _OF_THE_FRAME:
                    raise
                await asyncio.sleep(wait_s if error.retry_after_s is None else error.retry_after_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
        raise AssertionError("a call is made at least once")

    async def _run(self, command: str, given: dict[str, Any]) -> Any:
        """Make a call; one that is left is cancelled by name, as a server may be slow to see that nobody
        waits for it any more."""
        name = f"annotate-{secrets.token_hex(12)}"
        try:
            return await self._client.run(
                command, given, task_id=name, timeout_s=self._timeout_s, on_disconnect="cancel"
            )
        except asyncio.CancelledError:
            with anyio.move_on_after(CANCEL_S, shield=True), suppress(PenstockError):
                await self._client.cancel(name)
            raise


def _adapter(model: Model, number: int) -> Adapter | ClarifaiAdapter:
    if model.style == "penstock":
        return Adapter(model.answer, number)
    return ClarifaiAdapter(number, by_id=model.style == "clarifai-ids")
