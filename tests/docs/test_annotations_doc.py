"""docs/annotations.md has every format with what it cannot say, and its verbs are there."""

from __future__ import annotations

import re

from docs.pages import DOCS, codes, table
from penstock.annotate.formats.base import LOSSES
from penstock.annotate.formats.registry import FORMATS
from penstock.annotate.looks.look import LOOKS
from penstock.annotate.review.reading import READERS
from penstock.cli.annotations import verbs

PAGE = DOCS / "annotations.md"
TEXT = PAGE.read_text(encoding="utf-8")
# Of whole files and regions, not of what a format can say.
APART = {"thin", "stills"}


def test_every_format_has_its_row_with_what_it_cannot_say() -> None:
    rows = {codes(row["format"])[0]: set(codes(row["cannot say"])) for row in table(PAGE, "format")}
    assert rows == {name: LOSSES.keys() - APART - one.says for name, one in FORMATS.items()}
    assert list(rows) == list(FORMATS)


def test_every_loss_is_explained() -> None:
    assert {code for row in table(PAGE, "loss") for code in codes(row["loss"])} == set(LOSSES)


def test_what_is_said_of_stills_and_of_regions_without_area() -> None:
    rows = {codes(row["loss"])[0]: codes(row["what becomes of it"]) for row in table(PAGE, "loss")}
    assert set(rows["stills"]) == {name for name, one in FORMATS.items() if one.video}
    assert set(rows["thin"]) == {name for name, one in FORMATS.items() if one.thin}


def test_verbs_looks_and_readers_are_named() -> None:
    shown = set(re.findall(r"^penstock annotations (\w+)", TEXT, re.MULTILINE))
    assert shown == {command.name for command in verbs.registered_commands}
    assert set(re.findall(r"^- `(\w+)`:", TEXT, re.MULTILINE)) == set(LOOKS)
    assert [kind for kind in READERS if kind not in TEXT.lower().replace(" ", "-")] == []
