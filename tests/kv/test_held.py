"""What is held, as those know it who only have the events: the same, whatever happens in whichever order."""

from __future__ import annotations

import threading
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from penstock.errors import ReplayTruncated
from penstock.kv import PrefixIndex
from penstock.kv.events import BlockRemoved, BlockStored, EventLog
from penstock.kv.held import AskedPrefix, HeldPrefixes, shared
from penstock.kv.prompts import read_prompt

# Few words, so that conversations meet; a chain of them is named as a chain of blocks is.
TALKS = st.lists(st.sampled_from("abc"), max_size=6)
PLACES = st.integers(0, 3)


def chain(words: list[str]) -> list[bytes]:
    return [path.rjust(16, ".").encode() for path in accumulate(words)]


class Held(RuleBasedStateMachine):
    """Random conversations in a few places, and readers that come, fall behind and begin anew."""

    readers = Bundle("readers")

    def __init__(self) -> None:
        super().__init__()
        self.held = HeldPrefixes(max_blocks=12, clock=lambda: 0.0)
        self.held._log = EventLog(max_events=6)
        self.truth: dict[int, list[bytes]] = {}
        self.whole = PrefixIndex()

    @rule(place=PLACES, words=TALKS)
    def hold(self, place: int, words: list[str]) -> None:
        self.truth.pop(place, None)
        if words:
            self.truth[place] = chain(words)
        while sum(map(len, self.truth.values())) > 12:
            del self.truth[next(iter(self.truth))]
        self.held.hold(place, chain(words))
        for event in self.held.read(self.whole.next_seq - 1):
            self.whole.apply(event)

    @rule(place=PLACES)
    def drop(self, place: int) -> None:
        self.hold(place, [])

    @rule(target=readers)
    def come(self) -> PrefixIndex:
        return self.begin_anew(PrefixIndex())

    @rule(index=readers)
    def follow(self, index: PrefixIndex) -> None:
        try:
            for event in self.held.read(index.next_seq - 1):
                index.apply(event)
        except ReplayTruncated:
            self.begin_anew(index)
        assert index.hashes("") == self.blocks()

    @rule(index=readers)
    def follow_by_changes(self, index: PrefixIndex) -> None:
        try:
            changes = self.held.changes(index.next_seq - 1)
        except ReplayTruncated:
            self.begin_anew(index)
        else:
            assert not set(changes.held) & set(changes.gone)
            now = (index.hashes("") - set(changes.gone)) | set(changes.held)
            index.restart(changes.next_seq, {"": now})
        assert index.hashes("") == self.blocks()

    def begin_anew(self, index: PrefixIndex) -> PrefixIndex:
        all_of_it = self.held.snapshot()
        index.restart(all_of_it.next_seq, {"": all_of_it.held})
        return index

    def blocks(self) -> set[bytes]:
        return {name for held in self.truth.values() for name in held}

    @invariant()
    def the_events_replayed_are_what_is_held(self) -> None:
        assert self.whole.hashes("") == self.blocks() == set(self.held.snapshot().held)
        assert self.held._size == sum(map(len, self.truth.values()))

    @invariant()
    def no_block_is_held_without_those_before_it(self) -> None:
        for held in self.truth.values():
            assert self.whole.reach(held, "") == self.whole.longest(held, "") == len(held)


TestHeld = Held.TestCase
TestHeld.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@settings(deadline=None)
@given(TALKS, TALKS, TALKS)
def test_a_few_looks_find_what_all_would(one: list[str], other: list[str], asked: list[str]) -> None:
    held = HeldPrefixes()
    held.hold(1, chain(one))
    held.hold(2, chain(other))
    index = PrefixIndex()
    index.restart(0, {None: held.snapshot().held})
    best = max(shared(chain(one), chain(asked)), shared(chain(other), chain(asked)))
    assert index.reach(chain(asked), None) == index.longest(chain(asked), None) == best


def test_an_index_keeps_no_more_than_it_may() -> None:
    index = PrefixIndex(max_blocks=3)
    index.take(0, (BlockStored(tuple(chain(list("aaaaa"))), None, (), 0),))
    assert len(index) == 3
    assert index.reach(chain(list("aaaaa")), None) == 3
    index.take(1, (BlockRemoved((b"never",)), BlockStored((b"more",), None, (), 0)))
    assert index.reach([b"more"], None) == 0


def test_a_call_is_held_with_its_answer_and_its_text_is_in_no_event() -> None:
    text = b'{"prompt": "%b"}' % (b"secret " * 50)
    held = HeldPrefixes()
    AskedPrefix(held, text).hold("slot", "said " * 50)
    prompt = read_prompt(text)
    assert prompt is not None
    assert held.snapshot().held == prompt.chain("said " * 50) != prompt.chain()
    assert b"secret" not in repr(held.read(-1)).encode()
    AskedPrefix(held, b"{}").hold("slot", "said")
    assert not held.snapshot().held


def test_a_chain_that_is_too_long_is_not_held() -> None:
    held = HeldPrefixes(max_blocks=2)
    held.hold(1, chain(["a"]))
    held.hold(2, chain(list("bbb")))
    assert held.snapshot().held == []


def test_who_listens_is_told_until_it_ends_that() -> None:
    held = HeldPrefixes()
    told: list[int] = []
    end = held.listen(lambda: told.append(1))
    held.hold(1, chain(["a"]))
    held.hold(2, chain(["a"]))  # nothing new
    held.drop(3)
    assert len(told) == 1
    end()
    held.drop(1)
    assert len(told) == 1


def test_many_threads_may_hold_at_once() -> None:
    held = HeldPrefixes()

    def work(place: int) -> None:
        for _ in range(200):
            held.hold(place, chain(list("abc")))
            held.hold(place, chain(list("abd")))

    threads = [threading.Thread(target=work, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    index = PrefixIndex()
    for event in held.read(-1):
        index.apply(event)
    assert index.hashes("") == set(held.snapshot().held) == set(chain(list("abd")))


@pytest.mark.parametrize("length", range(5))
def test_two_chains_share_what_they_begin_with(length: int) -> None:
    one, other = chain(list("aaaa")), chain([*"aaaa"[:length], *"bbbb"])
    assert shared(one, other) == shared(other, one) == length
