"""`penstock run` counts calls once, wherever they run, and can be told not to."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cli.processes import Server as Running
from cli.processes import started
from penstock.calls.observer import NOBODY
from penstock.compose import build_observer
from penstock.observability.exposition import Exposition
from penstock.observability.recorder import Recorder
from penstock.server.settings import ServerSettings
from runtime.process.serving import Server, serving


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, as those of Unix sockets must be."""
    with tempfile.TemporaryDirectory(prefix="pen", dir="/tmp") as name:
        yield Path(name)


def counted(server: Server, name: str) -> dict[tuple[str, str], float]:
    """Return the values of a metric that are not zero, by command and how a call ended."""
    families = text_string_to_metric_families(server.http.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return {(s.labels["command"], s.labels.get("status", "")): s.value for s in samples if s.value}


@pytest.mark.parametrize(("isolated", "workers"), [((), 2), (("ticker", "exit_at"), 0)], ids=str)
def test_a_call_in_another_process_is_counted_once(folder: Path, isolated: list[str], workers: int) -> None:
    with serving(folder, *isolated, workers=workers) as server:
        for _ in range(3):
            assert server.call("ticker", n=4, dt=0).status_code == 200
        assert server.call("exit_at", k=1).json()["code"] == "unavailable"
        expected = {("ticker", "completed"): 3, ("exit_at", "error"): 1}
        assert counted(server, "penstock_calls_total") == expected
        assert counted(server, "penstock_items_total")["ticker", ""] == 12
        assert counted(server, "penstock_calls_running") == {}


@pytest.mark.parametrize(("flags", "status"), [((), 200), (("--no-metrics",), 404)], ids=str)
def test_metrics_are_on_unless_a_flag_says_otherwise(
    folder: Path, flags: tuple[str, ...], status: int
) -> None:
    (folder / "run.py").write_text("from penstock import Runtime\nrt = Runtime()\n")
    with started("run", folder / "run.py", "--port", 0, *flags) as process:
        assert httpx.get(f"{Running(process).url}/metrics").status_code == status


def test_the_environment_can_turn_them_off(monkeypatch: pytest.MonkeyPatch) -> None:
    observer, exposition = build_observer(ServerSettings())
    assert isinstance(observer, Recorder)
    assert isinstance(exposition, Exposition)
    monkeypatch.setenv("PENSTOCK_METRICS", "0")
    assert build_observer(ServerSettings()) == (NOBODY, None)
