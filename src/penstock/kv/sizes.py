"""What numbers a pool takes."""

from __future__ import annotations

from penstock.errors import CallError, ErrorCode

MAX_BLOCKS = 2**31 - 1


def invalid(message: str) -> CallError:
    """Return the error of an argument that makes no sense."""
    return CallError(message, ErrorCode.INVALID_ARGUMENT)


def check_whole(what: str, value: int, least: int, most: int | None = None) -> None:
    """Refuse what is no whole number from ``least`` to ``most``.

    Raises:
        CallError: ``invalid_argument``.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid(f"{what} is {value!r}; it must be a whole number")
    if value < least or (most is not None and value > most):
        bounds = f"at least {least}" if most is None else f"from {least} to {most}"
        raise invalid(f"{what} is {value}; it must be {bounds}")
