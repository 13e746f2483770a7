"""The example of the typed protocol runs, and what it prints is what the protocol reads."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from penstock.protocol.inference import Request, Response, parse_stream_event

EXAMPLE = Path(__file__).parents[2] / "examples" / "basic_usage.py"


def test_the_example_prints_valid_json(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    request, events, response, failure, refusal = (
        part.partition(":\n")[2] for part in capsys.readouterr().out.split("\n\n")
    )
    assert Request.model_validate_json(request).prompt == "Name three rivers."
    kinds = [parse_stream_event(line).event for line in events.splitlines()]
    assert kinds == ["start", "delta", "delta", "delta", "end"]
    assert Response.model_validate_json(response).output_text == "The Rhine, the Po and the Ebro."
    assert [json.loads(line)["code"] for line in failure.splitlines()] == ["cancelled", "unavailable"]
    assert [line.split(":")[0] for line in refusal.splitlines()] == ["max_tokens", "temperature"]
