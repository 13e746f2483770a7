"""What keeps a value from becoming one of Clarifai's, or back."""

from __future__ import annotations

from penstock.errors import CallError, ErrorCode

MAX_NAME = 100  # characters of a name that are sent back


class Misfit(Exception):
    """A value is not what its type says.

    Args:
        what: What it should be, or what is wrong.
    """

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what
        self.path: list[str | int] = []

    def within(self, step: str | int) -> Misfit:
        """Return it as seen from what the value is a part of."""
        self.path.insert(0, step[:MAX_NAME] if isinstance(step, str) else step)
        return self

    def error(self, root: str, code: ErrorCode) -> CallError:
        """Return it as what the call is refused or ended with.

        Args:
            root: What the value belongs to: ``input``, or ``item``.
        """
        place = ".".join(map(str, self.path)) or root
        details = [{"path": [root, *self.path], "reason": "misfit"}]
        return CallError(f"{place}: {self.what}", code, details=details)
