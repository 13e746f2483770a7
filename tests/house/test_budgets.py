"""Files and functions stay small."""

from __future__ import annotations

from house.package import PACKAGE, functions, sources

FILE_LINES = 400
FUNCTION_LINES = 60
DRAWERS = {"utils", "helpers", "common", "misc", "shared"}


def test_no_file_is_too_long() -> None:
    sizes = {path: len((PACKAGE / path).read_text(encoding="utf-8").splitlines()) for path in sources()}
    assert {path: size for path, size in sizes.items() if size > FILE_LINES} == {}


def test_no_function_is_too_long() -> None:
    sizes = {
        f"{path}:{function.name}": (function.end_lineno or 0) - function.lineno + 1
        for path, tree in sources().items()
        for function in functions(tree)
    }
    assert {name: size for name, size in sizes.items() if size > FUNCTION_LINES} == {}


def test_no_file_is_a_drawer() -> None:
    assert [path for path in PACKAGE.rglob("*") if path.stem.strip("_") in DRAWERS] == []
