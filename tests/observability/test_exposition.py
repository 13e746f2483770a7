"""What `/metrics` writes: golden, and read back by the parsers of the Prometheus client."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from observability.scripted import Run, everything
from penstock.observability.exposition import Exposition
from penstock.observability.recorder import Recorder

pytestmark = pytest.mark.anyio

GOLDEN = Path(__file__).parent / "golden"
OPEN = "application/openmetrics-text"
OF_PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


def own(body: bytes) -> str:
    """Return what penstock says of its calls, without what differs by machine and release."""
    parts = ["# HELP " + part for part in body.decode().split("# HELP ")[1:]]
    ours = (part for part in parts if part.startswith("# HELP penstock_"))
    return "".join(part for part in ours if "penstock_build" not in part)


def samples(families: list[Metric]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return the samples of families."""
    found = [sample for family in families for sample in family.samples]
    by_labels = {(s.name, frozenset(s.labels.items())): s.value for s in found}
    assert len(by_labels) == len(found), "a series stands twice"
    return by_labels


@pytest.mark.parametrize(("accept", "name"), [("", "metrics.txt"), (OPEN, "openmetrics.txt")])
async def test_a_scripted_run_is_shown_as_in_the_golden_file(accept: str, name: str) -> None:
    run = await everything()
    _, body = Exposition(run.recorder, run.caches)(accept, run.traffic)
    assert own(body) == (GOLDEN / name).read_text(encoding="utf-8")


async def test_both_forms_can_be_read_and_say_the_same() -> None:
    run = await everything()
    exposition = Exposition(run.recorder, run.caches)
    text = samples(list(read_text(exposition("", run.traffic)[1].decode())))
    opened = samples(list(read_openmetrics(exposition(OPEN, run.traffic)[1].decode())))
    moving = {key for key in text if key[0].startswith("process_")}
    assert text.keys() == opened.keys()
    assert {key: text[key] for key in text.keys() - moving} == {
        key: opened[key] for key in opened.keys() - moving
    }


@pytest.mark.parametrize("accept", ["", OPEN])
async def test_an_app_that_still_loads_has_metrics(accept: str) -> None:
    _, body = Exposition(Recorder())(accept)
    families = list((read_openmetrics if accept else read_text)(body.decode()))
    assert [s.value for f in families for s in f.samples if f.name.startswith("penstock_build")] == [1.0]


async def test_permits_and_queues_are_those_of_the_moment() -> None:
    run = Run(("add",))
    exposition = Exposition(run.recorder)

    def shown() -> dict[str, float]:
        found = samples(list(read_text(exposition("")[1].decode())))
        of_doors = {"permits", "calls_running", "queue_places", "calls_queued"}
        return {
            name.removeprefix("penstock_"): value
            for (name, labels), value in found.items()
            if name.removeprefix("penstock_") in of_doors and ("command", "add") in labels
        }

    assert shown() == {"permits": 2, "calls_running": 0, "queue_places": 3, "calls_queued": 0}
    places = [run.doors["add"].enter() for _ in range(3)]
    assert shown() == {"permits": 2, "calls_running": 2, "queue_places": 3, "calls_queued": 1}
    for place in places:
        place.leave()
    assert shown() == {"permits": 2, "calls_running": 0, "queue_places": 3, "calls_queued": 0}


async def test_apps_in_one_process_do_not_clash() -> None:
    one, two = Run(("add",)), Run(("add",))
    shows = Exposition(one.recorder), Exposition(two.recorder)
    one.start("add").complete(1, has_answer=True)
    labels = {"command": "add", "workflow": "", "status": "completed", "reason": ""}
    key = ("penstock_calls_total", frozenset(labels.items()))
    assert [samples(list(read_text(show("")[1].decode())))[key] for show in shows] == [1, 0]


@pytest.mark.parametrize(
    ("accept", "opened"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("text/html,application/xhtml+xml,*/*;q=0.8", False),
        ("application/openmetrics-text", True),
        ("APPLICATION/OpenMetrics-Text; Version=1.0.0", True),
        ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5", True),
        ("application/openmetrics-text;q=0.3,text/plain;q=0.5", False),
        ("text/plain,application/openmetrics-text", True),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;version=0.0.1", False),
        ("application/openmetrics-text;version=x;q=y,;;==", False),
        (OF_PROMETHEUS, True),
    ],
)
def test_the_form_is_the_one_that_is_asked_for(accept: str, opened: bool) -> None:
    kind, body = Exposition(Recorder())(accept)
    assert kind.startswith(f"{OPEN}; version=1.0.0" if opened else "text/plain; version=0.0.4")
    assert body.endswith(b"# EOF\n") is opened


@given(st.text(alphabet=st.characters(max_codepoint=255)) | st.text("aq=;,/.*01 ", max_size=60))
def test_no_accept_header_does_harm(accept: str) -> None:
    kind, _ = Exposition(Recorder())(accept)
    assert kind.split(";")[0] in ("text/plain", OPEN)
    assert kind.isascii()


async def test_names_that_need_it_are_escaped() -> None:
    name = 'a"b\\c\nd{},= é'
    run = Run((name,), (name,))
    run.start(name).complete(1, has_answer=True)
    for accept, read in (("", read_text), (OPEN, read_openmetrics)):
        families = list(read(Exposition(run.recorder)(accept)[1].decode()))
        found = {s.labels.get("command") for f in families for s in f.samples if "calls_total" in s.name}
        assert found == {name, ""}


@given(st.text(), st.lists(st.floats(0, 1e6)))
def test_any_name_and_any_value_come_back_from_either_form(name: str, given: list[float]) -> None:
    run = Run((name,))
    for value in given:
        run.recorder.commands[name].gap.observe(value)
    for accept, read in (("", read_text), (OPEN, read_openmetrics)):
        found = samples(list(read(Exposition(run.recorder)(accept)[1].decode())))
        whose = frozenset({("command", name), ("workflow", "")})
        assert found["penstock_items_total", whose] == 0
        assert found.get(("penstock_gap_seconds_count", whose), 0) == len(given)
        assert found.get(("penstock_gap_seconds_sum", whose), 0) == run.recorder.commands[name].gap.total
