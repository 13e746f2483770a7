"""The files of the page, as they were shipped: a table made once, in which names are looked up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from pathlib import Path

from penstock.errors import CallError, ErrorCode
from penstock.server.exchange import Exchange
from penstock.server.static_files import KINDS, File, answer_file, make_file

ROOT = "/"
BELOW = "/playground/"
PAGE = "index.html"
_STATIC = Path(__file__).parent / "static"
# Nothing from elsewhere, no script in the page itself, no text made an element, and nobody frames it.
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    b"trusted-types 'none'"
)


class Playground:
    """Answers `/`, to those who want a page, and what that page is made of.

    It is the same for everybody, and tells nothing of the server, so it needs no key: it asks for one.
    """

    def __init__(self) -> None:
        self._files = read_files()

    def opens(self, path: str, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a GET of ``path`` with these headers is answered with a file."""
        if path == ROOT:
            return wants_page(headers)
        return path.startswith(BELOW) and path.removeprefix(BELOW) in self._files

    def table(self) -> dict[str, Mapping[str, Callable[..., Awaitable[None]]]]:
        """Return what answers each path, by method; ``{file}`` stands for the rest of a path."""
        return {ROOT: {"GET": self.page}, BELOW + "{file}": {"GET": self.file}}

    async def page(self, exchange: Exchange) -> None:
        """`GET /`, for those who accept HTML; to others there is nothing.

        Raises:
            CallError: ``not_found``.
        """
        if not wants_page(exchange.headers):
            raise CallError(f"there is nothing at {ROOT!r}", ErrorCode.NOT_FOUND)
        await answer_file(exchange, self._files[PAGE])

    async def file(self, exchange: Exchange, name: str) -> None:
        """`GET /playground/{file}`.

        Raises:
            CallError: ``not_found``.
        """
        found = self._files.get(name)
        if found is None:
            raise CallError(f"the playground has no file {name[:100]!r}", ErrorCode.NOT_FOUND)
        await answer_file(exchange, found)


def wants_page(headers: Mapping[bytes, bytes]) -> bool:
    """Whether who asks is a browser that goes somewhere."""
    return b"text/html" in headers.get(b"accept", b"")


@cache
def read_files() -> Mapping[str, File]:
    """Return the files by the names under which they are asked for."""
    return {
        path.relative_to(_STATIC).as_posix(): make_file(path.read_bytes(), KINDS[path.suffix], _POLICY)
        for path in sorted(_STATIC.rglob("*"))
        if path.is_file()
    }
