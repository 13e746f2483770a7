"""Every parser on its corpus, and on bytes made from it; `make fuzz` goes on for longer, led by coverage."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
SEEDS = {name: [path.read_bytes() for path in sorted((CORPUS / name).iterdir())] for name in TARGETS}
EACH = pytest.mark.parametrize("name", TARGETS)


@EACH
def test_its_corpus(name: str) -> None:
    assert len(SEEDS[name]) >= 3
    for seed in SEEDS[name]:
        TARGETS[name](seed)


@EACH
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_bytes_made_from_it(name: str, data: st.DataObject) -> None:
    """Seeds cut to pieces and put together anew, with junk between them."""
    seeds = st.sampled_from(SEEDS[name])
    piece = st.tuples(seeds, st.integers(0, 80), st.integers(0, 80)).map(lambda t: t[0][t[1] : t[1] + t[2]])
    junk = st.binary(max_size=6)
    made = data.draw(st.lists(st.one_of(seeds, piece, piece, junk), max_size=6).map(b"".join))
    TARGETS[name](made)


def test_there_is_a_corpus_for_every_target_and_no_other() -> None:
    assert {path.name for path in CORPUS.iterdir()} == TARGETS.keys()
