"""What a server said about a fault, made fit for a caller: no address, no path, no key."""

from __future__ import annotations

import re
from collections.abc import Iterable

_LONGEST = 300
_HIDDEN = "…"

_PRIVATE = re.compile(
    r"""
    [a-z][a-z0-9+.-]*://\S+                                   # URLs
    | \b(?:sk|pk|hf|rk)[-_][\w*.-]{4,}                        # keys by their prefix, masked ones too
    | \bbearer\s+\S+
    | \b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b                    # IPv4
    | \[[0-9a-f:]*:[0-9a-f:]*\](?::\d+)?                      # IPv6
    | \b(?:[a-z0-9-]+\.)*[a-z][a-z0-9-]*:\d{2,5}\b            # host:port
    | (?<![\w.])(?:~|\.\.?)?/(?:[\w.@+-]+/)+[\w.@+-]*         # paths
    | (?<!\w)/[\w.@+-]+
    | \b[a-z]:\\\S+
    | \b(?=[\w-]*\d)(?=[\w-]*[a-z])[\w-]{32,}                 # long tokens of letters and digits
    """,
    re.IGNORECASE | re.VERBOSE,
)


def cleaned(text: str, secrets: Iterable[str] = ()) -> str:
    """Return ``text`` shortened, with addresses, paths and keys left out.

    Args:
        secrets: What must not be shown whatever it looks like, such as the server's host and its key.
    """
    text = " ".join(text[: _LONGEST * 4].split())
    for secret in secrets:
        if secret:
            text = text.replace(secret, _HIDDEN)
    text = _PRIVATE.sub(_HIDDEN, text)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + _HIDDEN
