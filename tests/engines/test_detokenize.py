"""Tokens to text: whatever the cuts, the pieces are the whole, and no half character is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engines.detokenize import Detokenizer

TEXT = st.text("ab é日🌊", max_size=60)


def of_bytes(tokens: Sequence[bytes]) -> Callable[[Sequence[int]], str]:
    """A decoder as of byte-level BPE."""
    return lambda ids: b"".join(tokens[token] for token in ids).decode(errors="replace")


def of_words(tokens: Sequence[str]) -> Callable[[Sequence[int]], str]:
    """A decoder as of SentencePiece: the space before the first token is no part of the text."""
    return lambda ids: "".join(tokens[token] for token in ids).removeprefix(" ")


def of_byte_fallback(tokens: Sequence[str | int]) -> Callable[[Sequence[int]], str]:
    """A decoder that spoils a whole run of bytes where one of them is wrong."""

    def decode(ids: Sequence[int]) -> str:
        text, run = "", b""
        for token in (*(tokens[number] for number in ids), ""):
            if isinstance(token, int):
                run += bytes([token])
                continue
            try:
                text += run.decode()
            except UnicodeDecodeError:
                text += "\ufffd" * len(run)
            text, run = text + token, b""
        return text

    return decode


def pieces(decode: Callable[[Sequence[int]], str], count: int) -> list[str]:
    detokenizer = Detokenizer(decode)
    return [*(detokenizer.feed(token) for token in range(count)), detokenizer.flush()]


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """Cut into tokens of one to four bytes."""
    tokens = []
    for size in (*sizes, *[1] * len(data)):
        tokens.append(data[:size])
        data = data[size:]
    return [token for token in tokens if token]


@given(text=TEXT, sizes=st.lists(st.integers(1, 4)))
def test_characters_of_several_tokens_come_whole(text: str, sizes: list[int]) -> None:
    tokens = cut(text.encode(), sizes)
    got = pieces(of_bytes(tokens), len(tokens))
    assert "".join(got) == text
    assert not any("\ufffd" in piece for piece in got)


@given(data=st.binary(max_size=60), sizes=st.lists(st.integers(1, 4)))
def test_any_bytes_come_as_the_whole_would(data: bytes, sizes: list[int]) -> None:
    tokens = cut(data, sizes)
    assert "".join(pieces(of_bytes(tokens), len(tokens))) == data.decode(errors="replace")


@given(st.lists(st.sampled_from([" a", " the", "ing", " ", "", "日"]), max_size=60))
def test_spaces_stay_where_they_were(tokens: list[str]) -> None:
    assert "".join(pieces(of_words(tokens), len(tokens))) == "".join(tokens).removeprefix(" ")


@given(TEXT)
def test_bytes_that_stand_in_for_characters_are_put_together(text: str) -> None:
    tokens = [part for letter in text for part in ([letter] if letter < "\x7f" else list(letter.encode()))]
    got = pieces(of_byte_fallback(tokens), len(tokens))
    assert "".join(got) == text
    assert not any("\ufffd" in piece for piece in got)


def test_what_came_before_a_wrong_byte_stays() -> None:
    tokens = [*"日".encode(), 0xFF, " a"]
    assert "".join(pieces(of_byte_fallback(tokens), len(tokens))).startswith("日")


@pytest.mark.parametrize("token", [b"\xff", b"\xf0\x9f"])
def test_what_is_no_character_is_not_held_for_ever(token: bytes) -> None:
    assert len("".join(pieces(of_bytes([token] * 100), 100)[:50])) >= 46


def test_a_cut_off_character_is_told_at_the_end() -> None:
    assert pieces(of_bytes([b"a", b"\xf0\x9f"]), 2) == ["a", "", "\ufffd"]


def test_it_decodes_a_few_tokens_each_time_however_long_the_text() -> None:
    asked: list[int] = []

    def decode(ids: Sequence[int]) -> str:
        asked.append(len(ids))
        return "a" * len(ids)

    assert "".join(pieces(decode, 1000)) == "a" * 1000
    assert max(asked) <= 16
