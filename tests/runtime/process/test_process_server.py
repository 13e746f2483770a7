"""P18 and P19 with a real server: it outlives its processes, and they do not outlive it."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from runtime.process.serving import BOUND_S, is_zombie, serving

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("busy_with", [None, "silent", "gil_hold", "spin_loop", "freeze"])
async def test_no_process_outlives_a_killed_server(folder: Path, gone: Any, busy_with: str | None) -> None:
    with serving(folder, "whoami", busy_with or "silent") as server:
        children = server.children()
        assert len(children) == 2
        assert server.call("whoami").json()["data"]["pid"] in children
        if busy_with not in (None, "silent"):
            assert server.first_item(busy_with) == {"tick": 0}
        server.process.kill()
        server.process.wait(BOUND_S)
        for child in children:
            await gone(child)


async def test_a_server_that_closes_in_order_takes_its_processes_along(folder: Path, gone: Any) -> None:
    with serving(folder, "whoami", "fork_child") as server:
        children = server.children()
        forked = server.first_item("fork_child")["pid"]
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(BOUND_S) == 0
        for child in (*children, forked):
            await gone(child)


async def test_probes_answer_while_processes_die(folder: Path) -> None:
    with serving(folder, "exit_at", "segv_at") as server:
        slowest = 0.0
        for command in ("exit_at", "segv_at") * 3:
            response = server.call(command, k=1)
            assert response.status_code == 503
            assert response.json()["code"] == "unavailable"
            assert "retry-after" in response.headers
            for probe in ("/livez", "/readyz", "/health"):
                began = time.monotonic()
                assert server.http.get(probe).status_code == 200
                slowest = max(slowest, time.monotonic() - began)
        assert slowest < BOUND_S / 10
        assert server.call("echo", value=1).json()["data"] == 1
        assert not [pid for pid in server.children() if is_zombie(pid)]
