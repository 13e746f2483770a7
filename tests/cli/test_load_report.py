"""The figures of a load."""

from __future__ import annotations

from array import array

import pytest

from penstock.cli.load import Measured, Plan
from penstock.cli.load_report import histogram, spread, summary


def test_quantiles_are_by_nearest_rank() -> None:
    assert spread([]) is None
    told = spread([number / 1000 for number in range(100, 0, -1)])
    assert told == pytest.approx({"p50": 50, "p90": 90, "p99": 99, "max": 100, "mean": 50.5})
    assert spread([0.002]) == pytest.approx(dict.fromkeys(("p50", "p90", "p99", "max", "mean"), 2))


def test_bars_hold_each_time_once() -> None:
    lines = [line.split() for line in histogram([0.010, 0.0115, 0.020])]
    assert [int(line[-1]) for line in lines] == [1, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    assert float(lines[-1][0]) == 20
    assert [line.split()[-1] for line in histogram([0.5, 0.5])] == ["2"]


def test_rates_are_of_what_completed() -> None:
    measured = Measured(Plan("predict", {}, 2, 4, None))
    measured.elapsed_s, measured.items, measured.totals = 2.0, 30, array("d", (0.5, 0.5, 1.0))
    measured.errors["unavailable"] += 1
    told = summary(measured)
    assert (told["calls"], told["completed"]) == (4, 3)
    assert (told["calls_per_s"], told["items_per_s"]) == (1.5, 15.0)
