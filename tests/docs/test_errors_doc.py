"""docs/errors.md has every code and every exception, and no other."""

from __future__ import annotations

import penstock
from docs.pages import DOCS, codes, table
from penstock.errors import FAULTS, PenstockError

PAGE = DOCS / "errors.md"


def test_every_code_has_its_row_with_its_status() -> None:
    rows = [(codes(row["code"])[0], int(row["HTTP"])) for row in table(PAGE, "code", "HTTP")]
    assert sorted(rows) == sorted((code.value, fault.http) for code, fault in FAULTS.items())


def test_every_row_says_what_happened_and_what_to_do() -> None:
    assert [row["code"] for row in table(PAGE, "code", "HTTP") if not all(row.values())] == []


def test_every_exception_of_the_package_has_its_row() -> None:
    exported = {
        name
        for name in penstock.__all__
        if isinstance(found := getattr(penstock, name), type) and issubclass(found, PenstockError)
    }
    rows = [codes(row["exception"])[0] for row in table(PAGE, "exception")]
    assert sorted(rows) == sorted(exported)
