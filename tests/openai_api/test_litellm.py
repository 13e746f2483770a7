"""litellm, unchanged, against our server; what is asked stands in ``litellm/asking.py``.

Its packages have an environment of their own, which ``make litellm`` makes; ``PENSTOCK_LITELLM_PYTHON`` names
another interpreter.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import anyio
import pytest

from openai_api.conftest import shown

ASKING = Path(__file__).parent / "litellm" / "asking.py"
ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("PENSTOCK_LITELLM_PYTHON") or ROOT / ".venv-litellm" / "bin" / "python")

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not PYTHON.exists(), reason="litellm is not here: `make litellm` installs it"),
]
EXPECTED = {
    "whole": ["one two", "length", 9],
    "as_vllm": "one two",
    "streamed": ["one two", "one two", 7],
    "choices": ["a b", "a b"],
    "tools": ["add", '{"a": 1}', "tool_calls"],
    "texts": "cba",
    "vectors": [[1.0, 0.25], [3.0, 0.25]],
    "responses": ["one two", "one two"],
    "refused": {
        "unknown": "NotFoundError",
        "value": "BadRequestError",
        "full": "RateLimitError",
        "failed": "ServiceUnavailableError",
        "key": "AuthenticationError",
    },
    "with_a_key": "hi",
    "both_later": ["one two", "one two"],
    "left": "cancelled",
}


async def test_what_it_asks_is_answered(other_clients: dict[str, str]) -> None:
    env = {**other_clients, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # it asks a server of its own else
    ran = await anyio.run_process([str(PYTHON), str(ASKING)], env=env, check=False)
    assert ran.returncode == 0, ran.stderr.decode()
    assert json.loads(ran.stdout.splitlines()[-1]) == EXPECTED


async def test_what_the_page_shows_runs(url: str) -> None:
    code = shown(url, "py litellm")
    env = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    ran = await anyio.run_process([str(PYTHON), "-c", code], env=env, check=False)
    assert (ran.returncode, ran.stdout) == (0, b"hi"), ran.stderr.decode()
