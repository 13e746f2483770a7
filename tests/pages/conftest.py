"""The projects of the reference pages, served."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pages.served import Served, fixture, serving

# What the page leaves out: imports, and the wrapper around a vendor's SDK.
CLAUDE_PREAMBLE = '''
import asyncio
from typing import Any, AsyncGenerator, Dict


class ClaudeWrapper:
    """Answers from a script, as the vendor cannot be reached from a test."""

    def __init__(self, model_name, api_key):
        self.model_name = model_name

    async def predict_streaming(self, prompt, system_prompt, max_tokens, temperature):
        for piece in ("Once ", "upon ", "a time."):
            await asyncio.sleep(0)
            yield piece

    def predict(self, prompt, system_prompt, max_tokens, temperature, streaming):
        return "Once upon a time."
'''


@pytest.fixture(scope="session")
def claude(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The model of the streaming guide, unchanged, served by `penstock run`."""
    folder: Path = tmp_path_factory.mktemp("text-2-text-claude")
    (folder / "manifest.yml").write_text("name: text-2-text-claude\nversion: 1.0.0\nentrypoint: run.py\n")
    (folder / "run.py").write_text(CLAUDE_PREAMBLE + fixture("xumi_run.py.txt"))
    with serving(folder) as served:
        yield served
