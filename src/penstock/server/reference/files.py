"""`/docs`: the OpenAPI document as a page of Swagger UI, whose files a package has that need not be there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from penstock.errors import CallError, ErrorCode
from penstock.server.exchange import Exchange
from penstock.server.static_files import KINDS, File, answer_file, make_file

ROOT = "/docs"
BELOW = "/docs/"
PAGE = "index.html"
PACKAGE = "fastapi_swagger"  # for its files: nothing of it is imported
_OF_PACKAGE = ("swagger-ui-bundle.js", "swagger-ui.css")
_STATIC = Path(__file__).parent / "static"
# Nothing from elsewhere, and no script or style in the page itself; the style sheet has pictures in itself.
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Reference:
    """Answers `/docs`, and what that page is made of.

    It is the same for everybody, and tells nothing of the server: it asks for a key where one is needed, and
    has the rest from `/openapi.json`.
    """

    def opens(self, path: str) -> bool:
        """Whether a GET of ``path`` is answered with a file."""
        return path == ROOT or (path.startswith(BELOW) and path.removeprefix(BELOW) in read_files())

    def table(self) -> dict[str, Mapping[str, Callable[..., Awaitable[None]]]]:
        """Return what answers each path, by method; ``{file}`` stands for the rest of a path."""
        return {ROOT: {"GET": self.page}, BELOW + "{file}": {"GET": self.file}}

    async def page(self, exchange: Exchange) -> None:
        """`GET /docs`.

        Raises:
            CallError: ``not_implemented``; the package is not there.
        """
        if not read_files():
            raise CallError(
                "this page needs the files of Swagger UI: pip install 'penstock[docs]'",
                ErrorCode.NOT_IMPLEMENTED,
            )
        await answer_file(exchange, read_files()[PAGE])

    async def file(self, exchange: Exchange, name: str) -> None:
        """`GET /docs/{file}`.

        Raises:
            CallError: ``not_found``.
        """
        found = read_files().get(name)
        if found is None:
            raise CallError(f"the page at {ROOT} has no file {name[:100]!r}", ErrorCode.NOT_FOUND)
        await answer_file(exchange, found)


@cache
def read_files() -> Mapping[str, File]:
    """Return the files by the names under which they are asked for; none where the package is not there."""
    package = find_spec(PACKAGE)
    if package is None or not package.submodule_search_locations:
        return {}
    shipped = Path(package.submodule_search_locations[0]) / "resources"
    paths = [*_STATIC.iterdir(), *(shipped / name for name in _OF_PACKAGE)]
    return {path.name: make_file(path.read_bytes(), KINDS[path.suffix], _POLICY) for path in paths}
