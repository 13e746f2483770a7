"""docs/grafana-dashboard.json: a real Prometheus has an answer to each question in it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream

from behaviour.served import hosted
from docs.pages import DOCS, codes, table
from observability.scripted import everything
from penstock import App, Runtime
from penstock.observability.exposition import Exposition

pytestmark = pytest.mark.anyio

DASHBOARD = json.loads((DOCS / "grafana-dashboard.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
TARGETS = [(panel, target) for panel in PANELS for target in panel["targets"]]
GIVEN = {"$__rate_interval": "1m", "$job": ".*", "$instance": ".*", "$command": ".*"}
OF_PROCESS = {
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_max_fds",
}
WAIT_S = 30.0
SCRAPES = 4  # after which there are several samples of each series; a rate takes two
PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
needs_prometheus = pytest.mark.skipif(
    PROMETHEUS is None, reason="no Prometheus on this machine (Debian: apt-get install prometheus)"
)
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="no promtool on this machine (Debian: apt-get install prometheus)"
)


def asked(expression: str) -> str:
    """Return a question as Grafana asks it, of everything."""
    for name, value in GIVEN.items():
        expression = expression.replace(name, value)
    return expression


def names(expression: str) -> set[str]:
    """Return the metrics that a question is about."""
    found = re.findall(r"\b(?:penstock|process)_\w+", expression)
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in found}


EVERY = {name for _, target in TARGETS for name in names(target["expr"])}


# -- the file ----------------------------------------------------------------------------------------------


def test_every_metric_is_on_it_and_no_other() -> None:
    listed = {codes(row["name"])[0] for row in table(DOCS / "metrics.md", "name", "type", "labels")}
    assert listed | OF_PROCESS == EVERY


def test_it_can_be_brought_into_any_grafana() -> None:
    assert (DASHBOARD["uid"], DASHBOARD["title"]) == ("penstock", "penstock")
    assert "id" not in DASHBOARD  # that of one Grafana
    assert VARIABLES["datasource"]["type"] == "datasource"
    source = {"type": "prometheus", "uid": "${datasource}"}
    assert all(panel["datasource"] == source for panel in PANELS)
    assert all(target["datasource"] == source for _, target in TARGETS)
    said = json.dumps(DASHBOARD)
    assert set(re.findall(r"\$(\w+)", said)) <= {*VARIABLES, "__rate_interval", "__all"}
    assert "http" not in said


def test_every_panel_has_a_place_a_name_and_a_word_about_it() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert all(panel["title"] and panel["description"] for panel in PANELS)


async def test_every_label_in_it_is_one_that_the_metric_has() -> None:
    labels = {codes(row["name"])[0]: {*codes(row["labels"]), "le", "job", "instance"} for row in _rows()}
    for panel, target in TARGETS:
        expression = target["expr"]
        for name, inside in re.findall(r"\b(penstock_\w+)\{([^}]*)\}", expression):
            known = labels[re.sub(r"_(bucket|sum|count)$", "", name)]
            used = set(re.findall(r"(\w+)(?:=~|!=|=)", inside))
            assert used <= known, (panel["title"], used - known)
        shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        grouped = [part for text in re.findall(r"by \(([^)]*)\)", expression) for part in text.split(", ")]
        assert shown <= {*grouped, "instance"}, panel["title"]


def _rows() -> list[dict[str, str]]:
    return table(DOCS / "metrics.md", "name", "type", "labels")


# -- to Prometheus -----------------------------------------------------------------------------------------


@needs_promtool
async def test_promtool_finds_nothing_to_say_about_the_metrics() -> None:
    run = await everything()
    _, body = Exposition(run.recorder, run.caches)("", run.traffic)
    ended = await anyio.run_process([str(PROMTOOL), "check", "metrics"], input=body, check=False)
    assert (ended.returncode, ended.stdout + ended.stderr) == (0, b"")


@needs_promtool
def test_promtool_reads_every_question(tmp_path: Path) -> None:
    rules = [{"record": f"question:{number}", "expr": expr} for number, expr in enumerate(_questions())]
    file = tmp_path / "rules.json"  # which is YAML too
    file.write_text(json.dumps({"groups": [{"name": "all", "rules": rules}]}))
    command = [str(PROMTOOL), "check", "rules", str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 0, ended.stderr
    assert f"{len(rules)} rules found" in ended.stdout
    file.write_text(json.dumps({"groups": [{"name": "a", "rules": [{"record": "a", "expr": "rate(x"}]}]}))
    assert subprocess.run(command, capture_output=True, timeout=30).returncode != 0


def _questions() -> Iterator[str]:
    for _, target in TARGETS:
        yield asked(target["expr"])
    page = (DOCS / "metrics.md").read_text(encoding="utf-8")
    for line in re.findall(r"```promql\n(.*?)```", page, re.DOTALL)[0].splitlines():
        if line and not line.startswith("#"):
            yield line


@asynccontextmanager
async def scraping(address: tuple[str, int], folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Run a Prometheus that looks at a server several times a second."""
    target = f"{address[0]}:{address[1]}"
    jobs = [{"job_name": "penstock", "static_configs": [{"targets": [target]}]}]
    config = folder / "prometheus.yml"
    config.write_text(json.dumps({"global": {"scrape_interval": "200ms"}, "scrape_configs": jobs}))
    command = [str(PROMETHEUS), f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    async with await anyio.open_process([*command, "--web.listen-address=127.0.0.1:0"]) as process:
        try:
            async with anyio.create_task_group() as tasks:
                url = await tasks.start(_listen, process)
                async with httpx.AsyncClient(base_url=url, timeout=WAIT_S) as http:
                    yield http
                tasks.cancel_scope.cancel()
        finally:
            process.terminate()


async def _listen(process: Process, task_status: Any) -> None:
    """Tell where a Prometheus listens, and go on reading what it says."""
    assert process.stderr is not None
    said = ""
    async for text in TextReceiveStream(process.stderr, errors="replace"):
        if said is not None and (found := re.search(r'"Listening on" address=([\d.]+:\d+)', said + text)):
            task_status.started(f"http://{found[1]}")
            said = None
        elif said is not None:
            said += text


async def answer(http: httpx.AsyncClient, question: str) -> list[Any]:
    """Return what Prometheus answers."""
    reply = await http.get("/api/v1/query", params={"query": question})
    told = reply.json()
    assert told["status"] == "success", (question, told)
    result: list[Any] = told["data"]["result"]
    return result


@needs_prometheus
async def test_a_real_prometheus_has_an_answer_to_every_question(tmp_path: Path) -> None:
    run = await everything()
    shown, scrapes, enough = Exposition(run.recorder, run.caches), count(1), anyio.Event()

    def exposition(accept: str, _: object) -> tuple[str, bytes]:
        if next(scrapes) > SCRAPES:
            enough.set()
        return shown(accept, run.traffic)

    async with (
        hosted(App(Runtime()), exposition=exposition) as (_, address),
        scraping(address, tmp_path) as http,
    ):
        with anyio.fail_after(WAIT_S):
            await enough.wait()
        assert (await answer(http, 'up{job="penstock"}'))[0]["value"][1] == "1"
        silent = [question for question in _questions() if not await answer(http, question)]
        variables = [each["query"]["query"] for each in VARIABLES.values() if each["type"] == "query"]
        for query in variables:
            metric, label = re.fullmatch(r"label_values\((.*), (\w+)\)", query).groups()  # type: ignore[union-attr]
            assert any(label in each["metric"] for each in await answer(http, asked(metric))), query
    assert silent == []
