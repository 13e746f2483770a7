"""What the papers need to become a site; mkdocs calls it for every page."""

from __future__ import annotations

import re

_FENCE = re.compile(r"^```(\w+)[ ].*$", re.MULTILINE)
_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)]+)\)")


def on_page_markdown(markdown: str, **_: object) -> str:
    """Return a page as mkdocs reads it.

    Behind a fence stands its language alone: the rest tells our tests how to try what it shows.  What lies
    outside `docs/` is no part of the site, and a link to it becomes its name.
    """
    return _OUTSIDE.sub(r"\1 (`\2`)", _FENCE.sub(r"```\1", markdown))
