"""The versions of what runs here."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("penstock", "uvicorn", "uvloop", "httptools", "websockets", "starlette", "msgspec", "pydantic")
PEERS = ("aiohttp", "litserve", "bentoml", "ray")


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Return those of the interpreter and of the packages, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
