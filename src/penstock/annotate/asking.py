"""Asking the commands about frames, and what becomes of those that fail."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

import anyio

from penstock.annotate.answers import Adapter, Answer, answers_in
from penstock.annotate.clarifai.answers import ClarifaiAdapter
from penstock.annotate.errors import AnnotateError, AnswerError
from penstock.annotate.media.messages import Picture
from penstock.annotate.settings import Model, Settings
from penstock.client import AsyncClient
from penstock.errors import CallCancelled, CallError, ErrorCode, PenstockError

T = TypeVar("T")

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


class Shown(NamedTuple):
    """A frame, and its picture in base64."""

    picture: Picture
    data: bytearray


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
        self._skip, self._tries = settings.on_error == "skip", settings.tries
        self._form = settings.form
        self._timeout_s = timeout_s
        self._retries = retries

    async def ask(self, shown: Sequence[Shown], name: str) -> list[Asked]:
        """Return what the commands say of frames of a file, of each."""
        try:
            told = await self._all(shown, name)
        except PenstockError as error:
            if len(shown) > 1 and self._skips(error):
                # Which of them it was is seen when each is asked about by itself.
                return [one for each in shown for one in await self.ask([each], name)]
            return [self._failed(error, _place(name, shown))] * len(shown)
        return [self._put_together(answers) for answers in zip(*told, strict=True)]

    def _put_together(self, answers: Sequence[Answer | AnswerError]) -> Asked:
        read = [answer for answer in answers if isinstance(answer, Answer)]
        for answer in answers:
            if isinstance(answer, AnswerError):
                return self._failed(answer, "")
        if len(read) == 1:
            return Asked(read[0])
        regions = [region for answer in read for region in answer.regions]
        return Asked(Answer(regions, tuple(tag for answer in read for tag in answer.tags)))

    def _skips(self, error: PenstockError) -> bool:
        of_the_frame = isinstance(error, CallError) and error.code in _OF_THE_FRAME
        return self._skip and (of_the_frame or isinstance(error, AnswerError))

    def _failed(self, error: PenstockError, place: str) -> Asked:
        skipped = self._skips(error)
        if isinstance(error, AnswerError):
            return Asked(None, "invalid_answer", str(error), None if skipped else error)
        if isinstance(error, CallError):
            hint = (
                "; send frames as jpeg or png, or fewer at once" if error.code is ErrorCode.TOO_LARGE else ""
            )
            fatal = None if skipped else CommandFailed(f"{place}: {error.message} ({error.code.value}){hint}")
            return Asked(None, error.code.value, error.message, fatal)
        return Asked(None, "", str(error), CommandFailed(f"{place}: {error}"))

    async def _all(self, shown: Sequence[Shown], name: str) -> list[list[Answer | AnswerError]]:
        """Return what each command says of each frame, or how it is none of the form that is declared."""
        texts = [str(one.data, "ascii") for one in shown]
        works = [partial(self._one, number, shown, texts, name) for number in range(len(self._models))]
        return await _together(works)

    async def _one(
        self, number: int, shown: Sequence[Shown], texts: Sequence[str], name: str
    ) -> list[Answer | AnswerError]:
        """Return what one command says of each frame: asked about so many at once as it takes."""
        step = self._models[number].batch or 1
        works = [
            partial(self._some, number, shown[at : at + step], texts[at : at + step], name)
            for at in range(0, len(shown), step)
        ]
        return [answer for some in await _together(works) for answer in some]

    async def _some(
        self, number: int, shown: Sequence[Shown], texts: Sequence[str], name: str
    ) -> list[Answer | AnswerError]:
        model = self._models[number]
        pictures = [
            self._picture(model, one.picture, text, name) for one, text in zip(shown, texts, strict=True)
        ]
        given = pictures[0] if model.batch is None else pictures
        answer = await self._call(model, {**model.params, model.param: given})
        each = model.answer.each if model.style == "penstock" else ""
        answers = (
            [answer] if model.batch is None else answers_in(answer, each, len(shown), _place(name, shown))
        )
        return [self._read(number, one, answer, name) for one, answer in zip(shown, answers, strict=True)]

    def _read(self, number: int, shown: Shown, answer: Any, name: str) -> Answer | AnswerError:
        picture = shown.picture
        try:
            return self._adapters[number].read(answer, picture.w, picture.h, _place(name, [shown]))
        except AnswerError as error:
            return error  # frames before it are written

    def _picture(self, model: Model, picture: Picture, text: str, name: str) -> Any:
        if model.style != "penstock":
            return {"base64": text}
        if model.plain:
            return text
        return {
            "data": text,
            "form": self._form,
            "width": picture.w,
            "height": picture.h,
            "name": name,
            "frame": picture.place.frame,
            "t": picture.place.t,
        }

    async def _call(self, model: Model, given: dict[str, Any]) -> Any:
        wait_s, left, tries = FIRST_WAIT_S, self._retries, self._tries
        while True:
            try:
                return await self._run(model.command, given)
            except CallCancelled as error:
                raise CallError(str(error), ErrorCode.CANCELLED) from error
            except CallError as error:
                if error.code in _OF_THE_FRAME:
                    tries -= 1
                    if not tries or error.code is ErrorCode.TOO_LARGE:
                        raise
                elif not left or not error.retryable:
                    raise
                else:
                    left -= 1
                await asyncio.sleep(wait_s if error.retry_after_s is None else error.retry_after_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)

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


def _place(name: str, shown: Sequence[Shown]) -> str:
    first, last = shown[0].picture.place.frame, shown[-1].picture.place.frame
    return f"{name}, frame {first}" if len(shown) == 1 else f"{name}, frames {first} to {last}"


async def _together(works: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """Return what comes of all, in their order; or raise the first failure, in their order too."""
    if len(works) == 1:
        return [await works[0]()]
    found: dict[int, T] = {}
    failures: dict[int, PenstockError] = {}

    async def one(number: int) -> None:
        try:
            found[number] = await works[number]()
        except PenstockError as error:
            failures[number] = error

    async with anyio.create_task_group() as group:
        for number in range(len(works)):
            group.start_soon(one, number)
    if failures:
        raise failures[min(failures)]
    return [found[number] for number in range(len(works))]


def _adapter(model: Model, number: int) -> Adapter | ClarifaiAdapter:
    if model.style == "penstock":
        return Adapter(model.answer, number)
    return ClarifaiAdapter(number, by_id=model.style == "clarifai-ids")
