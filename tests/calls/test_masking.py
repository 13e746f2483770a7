"""What is taken out of a text, and what is left in it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from calls.conftest import MakeLive
from penstock.calls.inputs import InputStream
from penstock.calls.masking import LOOKED_AT, MASK, RUN, VALUES, masked, secrets_of

TRACE = "Traceback (most recent call last):\n  File"


@pytest.mark.parametrize(
    ("text", "secrets", "due"),
    [
        ("it said hello world!", ["hello world"], "it said …!"),
        ("it said hello wor", ["say: hello world"], "it said…"),
        ("hello world hello world", ["hello world"], "… …"),
        ("too bad", ["nothing alike"], "too bad"),
        ("KeyError: 'fox1'", ["fox1"], "KeyError: '…'"),
        ("KeyError: 'fox'", ["fox"], "KeyError: 'fox'"),
        ("", ["hello world"], ""),
        ("short", [""], "short"),
        ("'a line\\nand another line'", ["a line\nand another line"], "'a line\\n…'"),
    ],
)
def test_parts_of_secrets_are_taken_out(text: str, secrets: list[str], due: str) -> None:
    assert masked(text, secrets) == due


@given(st.text(), st.text(), st.text(min_size=RUN))
def test_no_secret_is_left_whole_or_in_part(before: str, after: str, secret: str) -> None:
    for part in (secret, secret[1:], secret[:-1], secret[: len(secret) // 2]):
        left = masked(f"{before}\0{part}\0{after}", [secret])
        assert len(part) < RUN or part not in left


@given(st.text(alphabet="abc"), st.text(alphabet="xyz"))
def test_what_is_no_secret_stays(text: str, secret: str) -> None:
    assert masked(text, [secret]) == text


def test_of_a_long_secret_both_ends_are_looked_for() -> None:
    secret = "".join(f"{number:07}-" for number in range(LOOKED_AT))
    for part in (secret[:60], secret[-60:]):
        assert masked(f"<{part}>", [secret]) == f"<{MASK}>"


@dataclass
class Recorded:
    text: str
    more: object = None


class Model(BaseModel):
    text: str


def test_secrets_are_what_a_call_was_given_and_said(make_live: MakeLive) -> None:
    live = make_live()
    for piece in ("On", "ce"):
        live.log.item({"chunk": piece}, 0.0)
    live.log.item([1, "upon"], 0.0)
    live.log.item("a time", 0.0)
    stream = InputStream("words", msgspec.json.decode)
    stream.preload(["five"])
    asyncio.run(anext(stream))
    values = [
        "one",
        {"a key": ["two", 3, None]},
        Recorded("three", {"x"}),
        Model(text="four"),
        stream,
        b"six",
        7,
    ]
    found = list(secrets_of(live, values))
    assert found == [
        *("one", "a key", "two", "three", "x", "four", "five", "six"),
        *("On", "ce", "upon", "a time", "Onceupona time"),
    ]


def test_a_value_that_holds_itself_is_left_at_last(make_live: MakeLive) -> None:
    ring: list[object] = ["x"]
    ring.append(ring)
    assert len(list(secrets_of(make_live(), ring))) <= VALUES + 1


def test_the_frames_of_a_call_may_be_gone(make_live: MakeLive) -> None:
    live = make_live()
    for number in range(2000):
        live.log.item({"chunk": f"{number:099}"}, 0.0)
    live.log.trim(1000)
    assert f"{1999:099}" in list(secrets_of(live, ()))
