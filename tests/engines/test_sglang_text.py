"""What SGLang streams, all of it or only the new, comes out once and whole, however it is cut."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engines.sglang_text import Changed, Growing, Ids


def ids_of(numbers: list[int]) -> Ids:
    return Ids(json.dumps(numbers).encode())


def said(pieces: list[bytes], stop: str, *, whole: bool) -> list[tuple[str, list[int]]]:
    """What comes out of a stream, as a server cuts its text into tokens and at its stop string."""
    growing, shown, before = Growing([stop] if stop else []), [], ""
    for count in range(1, len(pieces) + 1):
        text = b"".join(pieces[:count]).decode("utf-8", "ignore")
        hit = bool(stop) and stop in text
        text = text[: text.find(stop)] if hit else text
        last = hit or count == len(pieces)
        ids = list(range(count))
        sent = (text, ids_of(ids)) if whole else (text[len(before) :], ids_of(ids[-1:]))
        new = growing.end(*sent, count, stop if hit else None) if last else growing.feed(*sent, count)
        shown.append((new[0], list(new[1])))
        before = text
        if last:
            break
    return shown


@given(st.text(max_size=30), st.lists(st.integers(0, 60), max_size=12), st.text(max_size=3), st.booleans())
def test_any_cut_gives_the_text_and_the_ids_once(text: str, cuts: list[int], stop: str, whole: bool) -> None:
    data = text.encode()
    at = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[a:b] for a, b in itertools.pairwise(at)] or [b""]
    shown = said(pieces, stop, whole=whole)
    expected = text[: text.find(stop)] if stop and stop in text else text
    assert "".join(piece for piece, _ in shown) == expected
    ids = [token for _, tokens in shown for token in tokens]
    assert ids == list(range(len(shown)))


def test_a_character_in_pieces_waits_for_its_last() -> None:
    fox = "🦊".encode()
    assert [piece for piece, _ in said([b"a", fox[:2], fox[2:]], "", whole=True)] == ["a", "", "🦊"]


def test_a_placeholder_for_half_a_character_is_not_shown() -> None:
    growing = Growing()
    assert growing.feed("a\ufffd", ids_of([1]), 1)[0] == "a"
    assert growing.end("aé", ids_of([1, 2]), 2)[0] == "é"


def test_a_placeholder_that_stays_is_shown_at_the_end() -> None:
    growing = Growing()
    growing.feed("a\ufffd", ids_of([1]), 1)
    assert growing.end("a\ufffd", ids_of([1]), 1)[0] == "\ufffd"


def test_the_beginning_of_a_stop_string_waits() -> None:
    assert [piece for piece, _ in said([b"one E", b"N", b"D two"], "END", whole=True)] == ["one ", "", ""]
    assert [piece for piece, _ in said([b"one E", b"N", b"X two"], "END", whole=False)] == [
        "one ",
        "",
        "ENX two",
    ]


@pytest.mark.parametrize("second", [("other", [1, 2], 2), ("a", [], 2)])
def test_what_was_said_cannot_be_taken_back(second: tuple[str, list[int], int]) -> None:
    growing = Growing()
    growing.feed("abc", ids_of([1]), 1)
    with pytest.raises(Changed):
        growing.feed(second[0], ids_of(second[1]), second[2])


def test_fewer_tokens_than_before_are_an_error() -> None:
    growing = Growing()
    growing.feed("abc", ids_of([1, 2]), 2)
    with pytest.raises(Changed):
        growing.feed("abcd", ids_of([1]), 1)


@given(st.lists(st.integers(0, 2**40), max_size=20), st.integers(-3, 25), st.booleans())
def test_the_last_ids_of_a_list(numbers: list[int], count: int, spaced: bool) -> None:
    ids = Ids(json.dumps(numbers, separators=(", ", ": ") if spaced else (",", ":")).encode())
    assert len(ids) == len(numbers)
    wanted = min(max(count, 0), len(numbers))
    assert ids.last(wanted) == numbers[len(numbers) - wanted :]


@pytest.mark.parametrize("raw", [b"", b"null", b"[]", b"[ ]"])
def test_no_ids(raw: bytes) -> None:
    assert len(Ids(raw)) == 0


def test_ids_that_are_no_numbers() -> None:
    with pytest.raises(Changed):
        Ids(b'["a"]').last(1)
