"""A run in a process of its own, which the tests kill: ``worker.py OUT SEEK_FROM WINDOW SOURCE``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from annotate.detectors import rt
from penstock import App
from penstock.annotate import Model, Refining, Settings, Tracking, annotate

SETTINGS = Settings(
    models=(Model(command="red"),), refining=Refining(min_score=0.3), tracking=Tracking(), on_error="skip"
)


async def main(out: str, seek_from: str, window: str, source: str) -> None:
    """Annotate, to the end."""
    async with App(rt) as app:
        run = annotate(source, app, SETTINGS, out=out, seek_from=int(seek_from), window=int(window))
        async with run as frames:
            async for _ in frames:
                pass


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
