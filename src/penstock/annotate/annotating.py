"""``annotate``: the records of a run as they are written, in async and in plain code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, TypeAlias

from anyio.from_thread import BlockingPortal, start_blocking_portal
from typing_extensions import Self

from penstock.annotate.asking import RETRIES, Asker
from penstock.annotate.batching import check_parameter
from penstock.annotate.errors import AnnotateError, ConfigError
from penstock.annotate.ledger import Ledger, sources_of
from penstock.annotate.manifests import digest_of
from penstock.annotate.media.feeds import BACKLOG, is_live, opened_live
from penstock.annotate.media.sources import Media, find
from penstock.annotate.records import Frame, Manifest
from penstock.annotate.run import SEEK_FROM, Progress, Run
from penstock.annotate.settings import Settings
from penstock.client import AsyncClient
from penstock.client.backoff import ONCE
from penstock.protocol.dispatch import Dispatcher

Opener: TypeAlias = Callable[[], AbstractAsyncContextManager[AsyncClient]]
Address: TypeAlias = str | AsyncClient | Dispatcher | Opener

OUT = "annotations"
DOWNLOADS = "media"


def annotate(
    sources: str | Path | Sequence[str | Path],
    model: Address,
    settings: Settings,
    *,
    out: str | Path = OUT,
    restart: bool = False,
    window: int = 4,
    threads: int = 1,
    timeout_s: float | None = None,
    retries: int = RETRIES,
    seek_from: int = SEEK_FROM,
    stdin: BinaryIO | None = None,
    live: bool = False,
    backlog: int = BACKLOG,
) -> Annotating:
    """Annotate images and videos; what is there of an earlier run is continued.

    ::

        settings = Settings(models=(Model(command="faces"),))
        with annotate("clip.mp4", "http://127.0.0.1:8000", settings) as frames:
            for frame in frames:
                print(frame.t, [region.label for region in frame.regions])

    Args:
        sources: Files, folders, patterns, http(s) URLs; ``-`` is ``stdin``; or one live source, see
            ``penstock.annotate.media.feeds.opened_live``.
        model: A server's URL, a client, a dispatcher in this process (in async code only), or what opens a
            client, such as ``penstock.compose.local_model("project")``.
        settings: Which commands are asked, about which frames, and what is kept.
        out: The folder of the log and the manifest.
        restart: Whether what is there is deleted.
        window: How many frames are under way at once; with 1 a frame is asked about when the one before it is
            written.  Where several are asked about together: how many such batches.
        threads: How many threads decode.
        timeout_s: Budget of each call, in seconds.
        retries: How often a call is made again that may succeed then.
        seek_from: Behind how many frames of a video a run that goes on seeks; before, it decodes them again.
        stdin: What ``-`` reads.
        live: Whether the source is read as it comes, and frames that come faster than they are looked at are
            dropped, the oldest first; of cameras and of addresses that stream, it always is.
        backlog: How many frames of a live source may wait to be looked at.
    """
    specs = [sources] if isinstance(sources, (str, Path)) else sources
    return Annotating(
        [str(spec) for spec in specs],
        model,
        settings,
        out=Path(out),
        restart=restart,
        window=window,
        threads=threads,
        timeout_s=timeout_s,
        retries=retries,
        seek_from=seek_from,
        stdin=stdin,
        backlog=backlog if live or any(map(is_live, map(str, specs))) else None,
    )


class Annotating:
    """A run; made by ``annotate``.  Iterating gives the frames that are written now, not those before.

    It is used with ``async with`` and ``async for``, or with ``with`` and ``for``; leaving it ends the run,
    which can then be continued.

    Raises:
        MediaError: A file is not there, or cannot be read.
        ConfigError: There is no such command.
        ResumeError: What is there was made of something else.
        AnswerError: A command answers in another form than declared.
        CommandFailed: A command failed.
        ConnectionFailed: No server answers.
        StorageError: What is found cannot be written, as the disk is full.
    """

    def __init__(
        self,
        specs: Sequence[str],
        model: Address,
        settings: Settings,
        *,
        out: Path,
        restart: bool,
        window: int,
        threads: int,
        timeout_s: float | None,
        retries: int,
        seek_from: int,
        stdin: BinaryIO | None,
        backlog: int | None,
    ) -> None:
        self._specs = specs
        self._model = model
        self._settings = settings
        self._out = out
        self._restart = restart
        self._window, self._threads, self._seek_from = window, threads, seek_from
        self._timeout_s, self._retries = timeout_s, retries
        self._stdin = stdin
        self._backlog = backlog  # of a live source
        self._stack = AsyncExitStack()
        self._portal: AbstractContextManager[BlockingPortal] | None = None
        self._inside: BlockingPortal | None = None
        self._frames: AsyncGenerator[Frame, None] | None = None
        self._run: Run | None = None
        self._ledger: Ledger | None = None

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return Progress() if self._run is None else self._run.progress

    @property
    def manifest(self) -> Manifest:
        """The manifest as it is now.

        Raises:
            AnnotateError: The run was not begun.
        """
        if self._ledger is None:
            raise AnnotateError("the run was not begun: use `with annotate(...) as frames:`")
        return self._ledger.manifest

    # -- async ---------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        try:
            await self._begin()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._frames is not None:
            await self._frames.aclose()
        await self._stack.aclose()

    def __aiter__(self) -> AsyncIterator[Frame]:
        return self

    async def __anext__(self) -> Frame:
        if self._frames is None:
            raise AnnotateError("the run was not begun: use `async with annotate(...) as frames:`")
        return await self._frames.__anext__()

    async def _begin(self) -> None:
        client = await self._open()
        media = await self._media()
        begun = await _manifest(client, self._settings, media)
        self._ledger = await asyncio.to_thread(Ledger, self._out, begun, restart=self._restart)
        self._stack.callback(self._ledger.close)  # also where nobody iterates
        asker = Asker(client, self._settings, timeout_s=self._timeout_s, retries=self._retries)
        self._run = Run(
            media,
            self._settings,
            asker,
            self._ledger,
            window=self._window,
            threads=self._threads,
            seek_from=self._seek_from,
        )
        self._frames = self._run.frames()

    async def _media(self) -> Sequence[Media]:
        if self._backlog is None:
            folder, limits = self._out / DOWNLOADS, self._settings.limits
            return await asyncio.to_thread(find, self._specs, folder, limits, self._stdin)
        if len(self._specs) != 1:
            raise ConfigError("a live source is annotated by itself; leave the other sources out")
        opening = opened_live(self._specs[0], self._backlog, self._stdin)
        media = await asyncio.to_thread(opening.__enter__)
        self._stack.push(opening)
        return [media]

    async def _open(self) -> AsyncClient:
        model = self._model
        if isinstance(model, AsyncClient):
            return model
        if isinstance(model, str) or not callable(model):
            return await self._stack.enter_async_context(AsyncClient(model, retry=ONCE))
        return await self._stack.enter_async_context(model())

    # -- plain ---------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        # A loop in a thread of its own: frames go on being decoded and asked about between two of them.
        self._portal = start_blocking_portal()
        self._inside = self._portal.__enter__()
        try:
            self._inside.call(self.__aenter__)
        except BaseException:
            self._portal.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._portal is not None
        assert self._inside is not None
        try:
            self._inside.call(self.__aexit__, kind, error, trace)
        finally:
            self._portal.__exit__(None, None, None)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Frame:
        if self._inside is None:
            raise AnnotateError("the run was not begun: use `with annotate(...) as frames:`")
        frame = self._inside.call(self._next)
        if frame is None:
            raise StopIteration
        return frame

    async def _next(self) -> Frame | None:
        return await anext(self._frames, None) if self._frames is not None else None


async def _manifest(client: AsyncClient, settings: Settings, media: Sequence[Media]) -> Manifest:
    """Return the manifest of a run that begins, once the commands are known to be there."""
    commands = await client.commands()
    for model in settings.models:
        if model.command not in commands:
            near = get_close_matches(model.command, commands, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(commands) or 'none'}"
            raise ConfigError(f"the server has no command {model.command!r}; {hint}")
        check_parameter(model, commands[model.command].input_schema)
    health = await client.health()
    written = settings.as_json()
    return Manifest(
        state="running",
        config=digest_of(written),
        settings=written,
        command=settings.command,
        model={"name": health.name, "version": health.version},
        versions=_versions(media),
        transport=settings.transport,
        sources=sources_of(media),
    )


def _versions(media: Sequence[Media]) -> dict[str, str]:
    kinds = {one.kind for one in media}
    packages = ["penstock", *(["av"] if "video" in kinds else []), *(["pillow"] if kinds - {"video"} else [])]
    found: dict[str, str] = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
