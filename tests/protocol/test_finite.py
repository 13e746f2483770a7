"""The walk that finds numbers which are not finite."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from penstock.protocol.finite import Path, non_finite

values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)


def plainly(value: Any, path: Path = ()) -> Iterator[Path]:
    """The same answer the simple way: recursive, for trees only."""
    if isinstance(value, float) and not math.isfinite(value):
        yield path
    members = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, member in members:
        yield from plainly(member, (*path, key))


@given(values)
def test_every_place_is_found_in_the_order_of_the_document(value: Any) -> None:
    assert [path for path, _ in non_finite(value)] == list(plainly(value))


def test_a_key_is_a_number_too() -> None:
    assert [path for path, _ in non_finite({"a": {math.inf: 0, 2.5: math.nan}})] == [
        ("a", "inf", "[key]"),
        ("a", "2.5"),
    ]


class Fresh(Mapping[str, object]):
    """Makes its members anew at every look, so that their ids repeat."""

    def __init__(self, *numbers: float) -> None:
        self.numbers = {str(index): number for index, number in enumerate(numbers)}

    def __getitem__(self, key: str) -> object:
        return Fresh(self.numbers[key], 0.0) if len(self.numbers) > 2 else [[self.numbers[key]]]

    def __iter__(self) -> Iterator[str]:
        return iter(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)


def test_members_made_on_the_fly_are_all_looked_into() -> None:
    found = [path for path, _ in non_finite(Fresh(0.0, math.nan, 0.0, math.inf))]
    assert found == [("1", "0", 0, 0), ("3", "0", 0, 0)]


def test_deep_values_take_linear_time() -> None:
    """A path per level would need some gigabytes here."""
    deep: list[Any] = [math.nan]
    for _ in range(100_000):
        deep = [deep]
    [(path, _)] = non_finite(deep)
    assert path == (0,) * 100_001
