"""Inputs as they are typed."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from penstock.cli.inputs import read_inputs

NAMES = st.from_regex(r"[A-Za-z_]\w{0,20}", fullmatch=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(NAMES, st.text().filter(lambda text: not text.startswith("@")))
def test_text_is_taken_as_it_stands(name: str, text: str) -> None:
    assert read_inputs([f"{name}={text}"]) == {name: text}


@given(NAMES, JSON)
def test_json_is_read(name: str, value: object) -> None:
    assert read_inputs([f"{name}:={json.dumps(value)}"]) == {name: value}


def test_json_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "turns.json").write_text('[{"role": "user", "content": "grüß"}]', encoding="utf-8")
    assert read_inputs([f"a:=@{tmp_path / 'turns.json'}"]) == {"a": [{"role": "user", "content": "grüß"}]}


def test_all_inputs_stand_in_a_file_and_those_that_are_named_count(tmp_path: Path) -> None:
    (tmp_path / "all.json").write_text('{"prompt": "A fox", "max_tokens": 3}')
    assert read_inputs([f"@{tmp_path / 'all.json'}"]) == {"prompt": "A fox", "max_tokens": 3}
    named = ["prompt=A hen", f"@{tmp_path / 'all.json'}"]
    assert read_inputs(named) == {"prompt": "A hen", "max_tokens": 3}


def test_standard_input_is_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    for word, content, expected in (
        ("a=@-", b"text", {"a": "text"}),
        ("a:=@-", b"[1]", {"a": [1]}),
        ("@-", b'{"b": 2}', {"b": 2}),
    ):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert read_inputs([word]) == expected


def test_the_first_sign_counts() -> None:
    assert read_inputs(["a=b:=c", "d=e=@f"]) == {"a": "b:=c", "d": "e=@f"}


def test_a_file_that_is_not_text_is_sent_as_bytes(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"\xff\xd8")
    (tmp_path / "note").write_bytes(b"caf\xc3\xa9")
    words = [f"a=@{tmp_path / 'image'}", f"b=@{tmp_path / 'note'}"]
    assert read_inputs(words) == {"a": b"\xff\xd8", "b": "café"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["prompt"], "name=text"),
        (["=x"], "name=text"),
        (["a:=nonsense"], "not JSON"),
        (["a=@/nosuchfile"], "/nosuchfile"),
        (["a=1", "a:=2"], "given twice"),
        (["a=@-", "b=@-"], "read once"),
        (["@/nosuchfile"], "/nosuchfile"),
        (["a:=@/dev/null"], "not JSON"),
        (["@LIST"], "no JSON object"),
        (["a:=@BYTES"], "not UTF-8"),
    ],
)
def test_what_is_no_input_is_refused(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "LIST").write_text("[1]")
    (tmp_path / "BYTES").write_bytes(b"\xff")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(typer.BadParameter, match=said):
        read_inputs(words)
