"""No generation's name is another's, or the beginning of one."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

from penstock.engines.sglang_names import Names

IDS = st.sampled_from(["a", "ab", "", "é", "0" * 32, "0" * 31 + "1", "f" * 33, f"{'0' * 16}.x"])


def test_a_call_is_known_by_its_own_id() -> None:
    request_id = uuid.uuid4().hex
    assert Names().take(request_id) == request_id


def test_its_second_generation_has_another_name_that_still_tells_the_call() -> None:
    names, request_id = Names(), uuid.uuid4().hex
    names.take(request_id)
    names.give_back(request_id)
    second = names.take(request_id)
    assert second.endswith(f".{request_id}")
    assert second != names.take(request_id)


@given(st.lists(st.tuples(IDS, st.booleans()), max_size=40))
def test_no_name_begins_another(steps: list[tuple[str, bool]]) -> None:
    names, taken = Names(kept=1000), []
    for request_id, back in steps:
        taken.append(names.take(request_id))
        if back:
            names.give_back(request_id)
    assert len(set(taken)) == len(taken)
    assert not [(a, b) for a in taken for b in taken if a is not b and b.startswith(a)]


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=60))
def test_what_is_live_is_not_forgotten_and_the_rest_is_bounded(steps: list[tuple[int, bool]]) -> None:
    names, live = Names(kept=3), set()
    for number, back in steps:
        request_id = f"{number:032x}"
        assert request_id not in live or names.take(request_id) != request_id
        if request_id in live:
            names.give_back(request_id)
            continue
        names.take(request_id)
        if back:
            names.give_back(request_id)
        else:
            live.add(request_id)
    assert len(names._live) <= 3 + len(live)
