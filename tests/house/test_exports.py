"""The public names: few, declared, sorted, and there."""

from __future__ import annotations

import ast

import pytest

import penstock
from house.package import sources


def test_names_are_sorted_and_stand_once() -> None:
    assert penstock.__all__ == sorted(set(penstock.__all__))


@pytest.mark.parametrize("name", penstock.__all__)
def test_a_name_can_be_had(name: str) -> None:
    assert getattr(penstock, name) is getattr(penstock, name)
    assert name in dir(penstock)


def test_type_checkers_see_the_same_names() -> None:
    guarded = next(
        node
        for node in sources()["__init__.py"].body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    seen = {name.asname or name.name for line in guarded.body for name in getattr(line, "names", ())}
    assert seen == set(penstock.__all__)


def test_a_name_that_is_not_there_is_named() -> None:
    with pytest.raises(AttributeError, match="Runtim"):
        getattr(penstock, "Runtim")  # noqa: B009 - type checkers know that it is not there
