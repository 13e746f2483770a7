"""docs/dependencies.md has a row for every dependency, and no other."""

from __future__ import annotations

import re
import sys

from house.package import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROW = re.compile(r"^\| `([^`]+)` \|(.*)\|$", re.MULTILINE)


def declared() -> set[str]:
    """Return the names of what the package needs, extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = (project["dependencies"], *project["optional-dependencies"].values())
    return {re.split(r"[^A-Za-z0-9._-]", line)[0].lower() for names in lists for line in names}


def rows() -> list[tuple[str, list[str]]]:
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    return [(name.lower(), [cell.strip() for cell in rest.split("|")]) for name, rest in ROW.findall(page)]


def test_every_dependency_has_one_row() -> None:
    names = [name for name, _ in rows()]
    assert sorted(names) == sorted(declared())


def test_every_row_gives_reason_licence_and_release() -> None:
    assert [name for name, cells in rows() if len(cells) != 3 or not all(cells)] == []
