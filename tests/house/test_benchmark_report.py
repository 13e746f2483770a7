"""The benchmark report is generated, never edited."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RESULTS = sorted((BENCHMARKS / "results").glob("*/*/results.json"))


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return import_module("report")


def test_the_report_is_what_the_newest_results_give(report: ModuleType) -> None:
    newest = report.newest()
    source, results = newest.relative_to(BENCHMARKS).as_posix(), json.loads(newest.read_text())
    assert (BENCHMARKS / "README.md").read_text() == report.render(results, source)
    assert (BENCHMARKS / "chart.svg").read_text() == report.draw(results)


def test_the_newest_results_are_those_measured_last(report: ModuleType) -> None:
    newest = json.loads(report.newest().read_text())["when"]
    assert newest == max(json.loads(path.read_text())["when"] for path in RESULTS)


def test_a_changed_result_changes_the_report(report: ModuleType) -> None:
    results = json.loads(RESULTS[-1].read_text())
    before = report.render(results, "here")
    for sample in results["samples"]:
        if "tokens_per_s" in sample:
            sample["tokens_per_s"] *= 2
    assert report.render(results, "here") != before


def sample(contender: str, connections: int, **measured: object) -> dict[str, object]:
    key = {"workload": "stream-256tok", "contender": contender, "connections": connections, "repeat": 0}
    return {**key, "items": 256, "server_cpu": 0.5, **measured}


def rows(samples: list[dict[str, object]]) -> dict[str, str]:
    """Return the last cell of each row of the aims, by the first."""
    aims, found = import_module("aims"), import_module("samples")
    cells = [line.strip("| ").split(" | ") for line in aims.table(found.Samples(samples))[2:]]
    return {line[0]: line[-1] for line in cells}


@pytest.mark.usefixtures("report")
def test_an_aim_is_met_missed_or_not_measured() -> None:
    bound, key = "NDJSON, 32 connections", "penstock_scripted"
    assert rows([sample(key, 32, tokens_per_s=500_000)])[bound] == "met"
    assert rows([sample(key, 32, tokens_per_s=499_999)])[bound] == "**missed**"
    assert set(rows([]).values()) == {"not measured"}


@pytest.mark.usefixtures("report")
def test_a_ratio_is_taken_within_each_repeat() -> None:
    many, bound = "penstock_scripted", "NDJSON, 1,000 connections, of 32"
    pairs = [(0, 32, 100), (0, 1000, 90), (1, 32, 1000), (1, 1000, 900), (2, 32, 10)]
    samples = [{**sample(many, at, tokens_per_s=rate), "repeat": repeat} for repeat, at, rate in pairs]
    assert rows(samples)[bound] == "met"
    samples[1]["tokens_per_s"] = samples[3]["tokens_per_s"] = 70
    assert rows(samples)[bound] == "**missed**"


@pytest.mark.usefixtures("report")
def test_what_is_felt_sooner_is_told_by_the_middle_of_each_repeat() -> None:
    bound = "first token, p50, with prefix-aware routing, sooner than in turns"
    felt = {"prefix": [1.0, 2.0, 9.0], "rounds": [1.0, 4.0, 5.0]}
    samples = [{**sample(who, 1, felt_ms=ms), "workload": "kv-routing"} for who, ms in felt.items()]
    assert rows(samples)[bound] == "met"
    samples[1]["felt_ms"] = [3.9, 3.9, 99.0]
    assert rows(samples)[bound] == "**missed**"


TIMES = {"p50": 1.0, "p99": 2.0, "max": 3.0}
KINDS = {
    "stream-256tok": {"tokens_per_s": 100, "first_item_ms": TIMES, "load_cpu": 0.1},
    "in-process": {"tokens_per_s": 100},
    "unary-add": {
        "items": 0,
        "tokens_per_s": 0,
        "requests_per_s": 50.0,
        "first_item_ms": TIMES,
        "load_cpu": 0.1,
    },
    "paced": {"paced_tokens_per_s": 100, "gap_ms": TIMES, "load_lag_ms": TIMES, "load_cpu": 0.1},
    "ws-idle": {"idle_kb_per_socket": 20.0, "used_kb_per_socket": 21.0},
    "disconnect": {"felt_ms": [1.0, 2.0, 3.0]},
    "cancel": {"felt_ms": [1.0, 2.0, 3.0]},
    "kv-routing": {"felt_ms": [1.0, 2.0, 3.0]},
    "adapters": {"client_us": 5.0, "adapter_us": 10.0, "above_us": 5.0, "call_us": 700},
    "startup": {
        "starts": 10,
        "start_ms": TIMES,
        "start_cpu_ms": TIMES,
        "imports_ms": {"rich": 9.5},
        "heavy": [],
    },
}


@pytest.mark.parametrize("workload", KINDS)
def test_each_kind_of_sample_has_its_table(report: ModuleType, workload: str) -> None:
    known = {one.name: one for one in report.WORKLOADS}[workload]
    names = [contender.name for contender in known.contenders][:2]
    found = [{**sample(name, 1, **KINDS[workload]), "workload": workload} for name in names]
    text = "\n".join(import_module("tables").tables(known, found))
    widths = {line.count("|") for line in text.splitlines() if line}
    assert len(widths) == 1
    assert text.count("\n|") == 2 + len(names)


def test_the_chart_has_a_bar_for_each_figure(report: ModuleType) -> None:
    chart = report.draw({"samples": [sample("bare", 32, tokens_per_s=10), sample("bare", 1, tokens_per_s=5)]})
    assert chart.count("bare ASGI") == 1
    assert "penstock" not in chart


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.parent.name)
def test_results_name_no_machine_and_no_path(path: Path) -> None:
    text = path.read_text()
    assert set(json.loads(text)["machine"]) == {"cpu", "cores", "system", "python"}
    assert not [word for word in ("/home", "/tmp", "/work", "/root") if word in text]


def test_the_load_refuses_a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    load = import_module("load")
    job = load.Job("predict", 1)
    item, end = b'{"status":"streaming"}\n', b'{"status":"completed"}\n'
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    job.check(head + item + end)
    for wrong in (head + end, head + item, head + end + item, head + item + item + end, item + end):
        with pytest.raises(load.WrongAnswer):
            job.check(wrong)


ITEM = {"text": "token ", "chunk": "token ", "finished": False}


def frames(items: list[dict[str, object]]) -> list[str]:
    """Return the frames of a stream, as JSON."""
    middle = [{"status": "streaming", "data": item} for item in items]
    found = [{"status": "accepted"}, *middle, {"status": "completed"}]
    numbered = [{**frame, "task_id": "t", "seq": seq} for seq, frame in enumerate(found)]
    return [json.dumps(frame, separators=(",", ":")) for frame in numbered]


def answer(form: str, lines: list[str]) -> bytes:
    """Return lines as an answer of a form."""
    if form == "sse":
        lines = [f"id: {number}\ndata: {line}\n" for number, line in enumerate(lines)]
    return "".join(["HTTP/1.1 200 OK\r\n\r\n", *(f"{line}\n" for line in lines)]).encode()


CUMULATIVE = [{**ITEM, "text": "token " * count} for count in (1, 2)]
FORMS = {
    "ndjson": (frames([ITEM, ITEM]), frames(CUMULATIVE)),
    "sse": (frames([ITEM, ITEM]), frames(CUMULATIVE)),
    "cumulative": (frames(CUMULATIVE), frames([ITEM, ITEM])),
    "plain": ([json.dumps(ITEM)] * 2, [json.dumps(item) for item in CUMULATIVE]),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_load_reads_each_form(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    load = import_module("load")
    job, (right, wrong) = load.Job("predict", 2, form), FORMS[form]
    job.check(answer(form, right))
    job.check_closely(answer(form, right), 0)
    job.check(answer(form, wrong))  # as many, but others
    with pytest.raises(load.WrongAnswer):
        job.check_closely(answer(form, wrong), 0)
    with pytest.raises(load.WrongAnswer):
        job.check(answer(form, right[:1] + right[2:]))


def test_an_event_with_another_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    load = import_module("load")
    changed = answer("sse", frames([ITEM, ITEM])).replace(b"id: 2", b"id: 3")
    with pytest.raises(load.WrongAnswer):
        load.Job("predict", 2, "sse").check_closely(changed, 0)


def test_what_peers_run_on_is_pinned() -> None:
    for path in (BENCHMARKS / "peers").glob("*/requirements.txt"):
        lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        assert lines
        assert [line for line in lines if line.count("==") != 1] == []
        assert (path.parent / "app.py").is_file()


def test_peers_are_named_one_by_one_or_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    peering = import_module("peering")
    assert peering.named("starlette, aiohttp") == ["starlette", "aiohttp"]
    assert peering.named("ray litserve") == ["ray", "litserve"]
    assert peering.named("all") == list(peering.NAMES)
    assert peering.named("none") == []
    with pytest.raises(ValueError, match="gunicorn"):
        peering.named("starlette,gunicorn")


def test_the_report_runs_as_a_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "report.py"), "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
