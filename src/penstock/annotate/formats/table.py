"""CSV: a row for each region, with all that is known of it."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from penstock.annotate.formats.base import LOSSES, Fault, Format
from penstock.annotate.formats.dataset import Dataset, Shot
from penstock.annotate.formats.reading import Unreadable, decimals, read_text
from penstock.annotate.formats.writing import number, opened, text_of
from penstock.annotate.records import Region, Tag

FILE = "regions.csv"
COLUMNS = (
    *("file", "frame", "pts", "time_base", "seconds", "width", "height"),
    *(
        "kind",
        "region",
        "label",
        "score",
        "x1",
        "y1",
        "x2",
        "y2",
        "track",
        "source",
        "text",
        "attributes",
        "shape",
    ),
)


class Table(Format):
    """All there is, in rows."""

    name = "csv"
    says = frozenset(LOSSES)
    thin = True

    def produce(self, data: Dataset, folder: Path, losses: Counter[str]) -> Iterable[Path]:
        with opened(folder / FILE) as file:
            # It ends lines as RFC 4180 does, and so quotes all that looks like an end.
            rows = csv.writer(file)
            rows.writerow(COLUMNS)
            for shot in data.shots():
                rows.writerows([_written(cell) for cell in row] for row in _rows(shot))
        yield folder / FILE

    def faults(self, folder: Path) -> Iterator[Fault]:
        try:
            rows = csv.reader(io.StringIO(read_text(folder, FILE), newline=""), strict=True)
            head = next(rows, [])
            if tuple(head) != COLUMNS:
                yield Fault(FILE, "line 1", f"the columns should be {', '.join(COLUMNS)}")
                return
            seen: set[str] = set()
            for row in rows:
                if what := _row_fault(row, seen):
                    yield Fault(FILE, f"line {rows.line_num}", what)
        except (Unreadable, csv.Error) as error:
            yield error.fault if isinstance(error, Unreadable) else Fault(FILE, "", str(error))


def _rows(shot: Shot) -> Iterator[list[Any]]:
    frame = shot.frame
    pts = "" if frame.pts is None else frame.pts
    start = [shot.file_name, frame.frame, pts, frame.tb, frame.t, frame.w, frame.h]
    yield from (start + _tag(tag) for tag in frame.labels)
    yield from (start + _region(region) for region in frame.regions)


def _tag(tag: Tag) -> list[Any]:
    return ["label", "", tag.label, _optional(tag.score), *[""] * 9]


def _region(region: Region) -> list[Any]:
    shape = {
        "obb": region.obb,
        "polys": region.polys,
        "lines": region.lines,
        "rle": region.rle,
        "kp": region.kp,
    }
    there = {name: msgspec.to_builtins(value) for name, value in shape.items() if value is not None}
    box = [number(one) for one in region.box]
    told = [region.track or "", region.src, region.text or ""]
    attributes = text_of(dict(region.attrs)) if region.attrs else ""
    score = _optional(region.score)
    return [
        "region",
        region.id,
        region.label,
        score,
        *box,
        *told,
        attributes,
        text_of(there) if there else "",
    ]


def _written(cell: Any) -> Any:
    """Return a cell as it is written; readers of older Pythons know no character zero."""
    return cell.replace("\0", "\\x00") if isinstance(cell, str) else cell


def _optional(score: float | None) -> int | float | str:
    return "" if score is None else number(score)


def _row_fault(row: list[str], seen: set[str]) -> str:
    if len(row) != len(COLUMNS):
        return f"it should have {len(COLUMNS)} columns"
    cells = dict(zip(COLUMNS, row, strict=True))
    if cells["kind"] == "label":
        return ""
    if cells["kind"] != "region" or not cells["region"] or cells["region"] in seen:
        return "its kind should be region or label, and the id of a region its own"
    seen.add(cells["region"])
    box = decimals([cells[name] for name in ("x1", "y1", "x2", "y2")])
    if box is None or box[0] > box[2] or box[1] > box[3]:
        return "x1, y1, x2 and y2 are no box"
    if cells["score"] and decimals([cells["score"]]) is None:
        return "its score should be a number"
    return ""
