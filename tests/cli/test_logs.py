"""`--log-format`: what servers log, as lines of JSON, however low the level."""

from __future__ import annotations

import json
import signal
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.processes import PATIENCE_S, Penstock, Serve

NOISY = """
import logging

from penstock import Runtime, current_call

rt = Runtime()


@rt.command("work")
def work(secret: str):
    current_call().log("at\\nwork")
    raise RuntimeError(f"{secret} is too bad")


logging.getLogger().setLevel(1)
logging.getLogger("penstock").setLevel(1)
"""


def logged(serve: Serve, folder: Path, *arguments: object, **env: str) -> list[str]:
    """Return what a server logs whose command fails."""
    file = folder / "run.py"
    file.write_text(NOISY)
    server = serve(file, *arguments, **env)
    body = {"command": "work", "input": {"secret": "psst"}}
    httpx.post(f"{server.url}/v2/execute", json=body, timeout=PATIENCE_S)
    server.process.send_signal(signal.SIGTERM)
    return server.process.communicate(timeout=PATIENCE_S)[1].splitlines()


@pytest.mark.parametrize("workers", [0, 1])
def test_each_record_is_an_object_on_a_line(serve: Serve, tmp_path: Path, workers: int) -> None:
    lines = logged(serve, tmp_path, "--log-format", "json", "--workers", workers)
    records: list[dict[str, Any]] = [json.loads(line) for line in lines]
    assert all({"time", "level", "logger", "message"} <= record.keys() for record in records)
    assert all(datetime.fromisoformat(record["time"]).utcoffset() == timedelta(0) for record in records)
    said = next(record for record in records if record["message"] == "at\nwork")
    failed = next(record for record in records if "too bad" in record.get("exception", ""))
    assert (said["level"], said["command"], failed["level"], failed["command"]) == (
        "INFO",
        "work",
        "ERROR",
        "work",
    )
    assert said["request_id"] == failed["request_id"]
    assert len(said["request_id"]) == 32
    assert ("process" in said) == bool(workers)
    assert not any("psst" in line for line in lines)


def test_the_environment_says_it_too_and_the_flag_wins(serve: Serve, tmp_path: Path) -> None:
    assert all(json.loads(line) for line in logged(serve, tmp_path, PENSTOCK_LOG_FORMAT="json"))
    lines = logged(serve, tmp_path, "--log-format", "text", PENSTOCK_LOG_FORMAT="json")
    assert any(line.endswith("RuntimeError: … is too bad") for line in lines)


def test_another_format_is_a_usage_error(penstock: Penstock) -> None:
    for verb in (("run", "--engine", "scripted"), ("gateway",), ("runner", "--engine", "scripted")):
        ended = penstock(*verb, "--log-format", "xml")
        assert ended.returncode == 2
        assert "json" in ended.stderr
