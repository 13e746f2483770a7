"""Slots go to those who have most in common with what they hold."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engines.prefixes import SlotPrefixes, Tokens
from penstock.kv.held import AskedPrefix, HeldPrefixes
from penstock.kv.prompts import raw_prompt

TALKS = [raw_prompt(f"{name} " * 400).chain() for name in ("ant", "bee", "cat")]


def asked(held: HeldPrefixes, text: str) -> AskedPrefix:
    return AskedPrefix(held, b'{"prompt": "%b"}' % text.encode())


def run(slots: SlotPrefixes, chain: Tokens, told: AskedPrefix | None = None) -> int:
    slot = slots.take(chain)
    slots.evaluated(slot, chain, told, "")
    slots.give_back(slot)
    return slot


def test_a_conversation_comes_back_to_its_slot_and_others_take_the_one_unused_longest() -> None:
    slots = SlotPrefixes(2)
    ant, bee, cat = TALKS
    assert [run(slots, chain) for chain in (ant, bee, ant, cat, ant, bee)] == [0, 1, 0, 1, 0, 1]


def test_a_little_in_common_is_not_worth_a_slot_that_another_needs() -> None:
    slots = SlotPrefixes(2)
    base = raw_prompt("a" * 200 + "b" * 3000).chain()
    other = raw_prompt("a" * 200 + "c" * 3000).chain()
    assert run(slots, base) == 0
    assert run(slots, other) == 1


def test_prompts_that_share_no_whole_block_of_text_are_told_apart_by_their_tokens() -> None:
    slots = SlotPrefixes(2)
    prompts = ([1, 2, 3], [7, 8, 9], [1, 2, 4], [7, 8], [1, 2, 4])
    assert [run(slots, ids) for ids in prompts] == [0, 1, 0, 1, 0]


def test_what_a_slot_holds_counts_while_it_is_free() -> None:
    slots, held = SlotPrefixes(2), HeldPrefixes()
    run(slots, TALKS[0], asked(held, "ant " * 400))
    known = held.snapshot().held
    assert known
    slot = slots.take(TALKS[0])
    assert not held.snapshot().held
    assert slots.take(TALKS[0]) != slot
    slots.evaluated(slot, TALKS[0], asked(held, "ant " * 400), "")
    assert held.snapshot().held == known


def test_what_was_not_evaluated_is_not_held() -> None:
    slots, held = SlotPrefixes(1), HeldPrefixes()
    run(slots, TALKS[0], asked(held, "ant " * 400))
    slots.take(TALKS[1])
    slots.lost(0)
    slots.give_back(0)
    assert not held.snapshot().held
    assert slots._held == [()]


def test_a_cut_evaluation_leaves_what_both_have_in_common() -> None:
    slots = SlotPrefixes(1)
    run(slots, TALKS[0])
    slots.take([*TALKS[0][:3], b"x", b"y"])
    slots.give_back(0)
    assert slots._held == [TALKS[0][:3]]


def test_a_closed_engine_holds_nothing() -> None:
    slots, held = SlotPrefixes(2), HeldPrefixes()
    for chain in TALKS[:2]:
        run(slots, chain, asked(held, "ant " * 400))
    slots.close()
    slots.close()
    assert not held.snapshot().held


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2), st.booleans()), max_size=40))
def test_whatever_comes_and_goes_what_is_told_is_what_free_slots_hold(
    steps: list[tuple[bool, int, bool]],
) -> None:
    slots, held = SlotPrefixes(3), HeldPrefixes()
    texts = [f"{name} " * 400 for name in ("ant", "bee", "cat")]
    chains = [asked(HeldPrefixes(), text) for text in texts]
    busy: list[tuple[int, int]] = []
    idle: dict[int, int] = {}
    for begins, talk, well in steps:
        if begins and len(busy) < 3:
            slot = slots.take(TALKS[talk])
            idle.pop(slot, None)
            busy.append((slot, talk))
        elif busy:
            slot, talk = busy.pop(0)
            if well:
                slots.evaluated(slot, TALKS[talk], asked(held, texts[talk]), "")
                idle[slot] = talk
            else:
                slots.lost(slot)
            slots.give_back(slot)
        expected = HeldPrefixes()
        for slot, talk in idle.items():
            AskedPrefix(expected, chains[talk].input).hold(slot, "")
        assert set(held.snapshot().held) == set(expected.snapshot().held)
