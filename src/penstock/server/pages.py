"""The pages of a server: `/`, where its commands can be tried, and `/docs`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from penstock.server.playground.files import Playground
from penstock.server.reference.files import Reference


class Pages:
    """All of them; they need no key, as they tell nothing of the server."""

    def __init__(self) -> None:
        self._playground = Playground()
        self._reference = Reference()

    def opens(self, path: str, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a GET of ``path`` with these headers is answered with a file."""
        return self._playground.opens(path, headers) or self._reference.opens(path)

    def table(self) -> dict[str, Mapping[str, Callable[..., Awaitable[None]]]]:
        """Return what answers each path, by method; ``{file}`` stands for the rest of a path."""
        return {**self._playground.table(), **self._reference.table()}
