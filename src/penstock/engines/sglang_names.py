"""The ids by which generations are known to an SGLang server, and are aborted there.

An abort there stops every request whose id *begins* with the given one, and SGLang itself aborts an id two
seconds after its stream was left.  So no generation may have the id of an earlier one, nor one that is the
beginning of another's; else a late abort hits who is innocent.
"""

from __future__ import annotations

import re
import uuid

_OURS = re.compile(r"[0-9a-f]{32}")
_KEPT = 65536


class Names:
    """Names generations: by their request's id the first time, later with something unique before it.

    Ids of this server's calls all have 32 digits, so none begins another; whatever else comes as a request's
    id is never used bare.

    Args:
        kept: How many request ids are remembered, beside those of live generations.
    """

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        self._live: dict[str, int] = {}

    def take(self, request_id: str) -> str:
        """Return a name that no other generation has had; ``give_back`` is due when it is over."""
        new = request_id not in self._live
        self._live[request_id] = self._live.pop(request_id, 0) + 1
        self._forget()
        if new and _OURS.fullmatch(request_id):
            return request_id
        return f"{uuid.uuid4().hex[:16]}.{request_id}"

    def give_back(self, request_id: str) -> None:
        """A generation of this request is over, and so is its abort."""
        self._live[request_id] -= 1

    def _forget(self) -> None:
        while len(self._live) > self._kept:
            oldest = next(iter(self._live))
            live = self._live.pop(oldest)
            if live:
                self._live[oldest] = live
                return
