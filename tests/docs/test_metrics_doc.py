"""docs/metrics.md has every metric of penstock, as it is exported, and no other."""

from __future__ import annotations

import re

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from docs.pages import DOCS, codes, fences, table
from observability.scripted import everything
from penstock.observability.exposition import Exposition
from penstock.protocol.messages import CancelReason

pytestmark = pytest.mark.anyio

PAGE = DOCS / "metrics.md"
SUFFIX = {"counter": "_total", "info": "_info"}


async def exported() -> dict[str, tuple[str, list[str]]]:
    """Return the metrics of a run in which everything happens: their types and labels, by name."""
    run = await everything()
    _, body = Exposition(run.recorder, run.caches)("application/openmetrics-text", run.traffic)
    families = text_string_to_metric_families(body.decode())
    return {
        family.name + SUFFIX.get(family.type, ""): (
            family.type,
            sorted({label for sample in family.samples for label in sample.labels} - {"le"}),
        )
        for family in families
        if family.name.startswith("penstock_")
    }


async def test_every_metric_has_its_row() -> None:
    rows = table(PAGE, "name", "type", "labels")
    shown = {codes(row["name"])[0]: (row["type"], sorted(codes(row["labels"]))) for row in rows}
    assert len(shown) == len(rows)
    assert shown == await exported()


async def test_names_elsewhere_on_the_page_are_those_of_metrics() -> None:
    known = await exported()
    named = set(re.findall(r"\bpenstock_\w+", PAGE.read_text(encoding="utf-8")))
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in named} == known.keys()


def test_the_reasons_of_a_cancel_are_listed() -> None:
    rows = {codes(row["name"])[0]: row for row in table(PAGE, "name", "type", "labels")}
    shown = codes(rows["penstock_cancels_total"]["what it says"])
    assert shown == [reason.value for reason in CancelReason]


def test_there_are_questions() -> None:
    assert [fence.info for fence in fences(PAGE)] == ["yaml", "promql", "python"]
