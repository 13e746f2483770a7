"""Keys in a file: what is written can be read, mistakes are told, and only a key itself is found."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import PenstockError
from penstock.protocol.keys import (
    KEY_PREFIX,
    Key,
    KeyTable,
    Scope,
    digest_of,
    make_token,
    parse_keys,
    parse_moment,
)

TOKEN = make_token(b"a" * 32)
DIGEST = f"sha256:{digest_of(TOKEN)}"
OTHER = f"sha256:{'0' * 64}"

NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,20}", fullmatch=True)
WORDS = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)


@st.composite
def keys(draw: st.DrawFn) -> Key:
    scopes = draw(st.frozensets(st.sampled_from(Scope), min_size=1))
    commands = st.none() | st.frozensets(WORDS)
    return Key(
        name=draw(NAMES),
        digest=digest_of(draw(st.text())),
        scopes=scopes,
        expires_at=draw(st.none() | st.integers(0, 4_000_000_000).map(float)),
        commands=draw(commands) if Scope.RUNNER in scopes else None,
    )


@given(st.lists(keys(), max_size=5, unique_by=(lambda key: key.name, lambda key: key.id)))
def test_what_is_written_is_read_again(written: list[Key]) -> None:
    text = "# names\n\n" + "".join(f"  {key.line()}  \n" for key in written)
    assert list(parse_keys(text)) == written


@given(st.text())
def test_any_text_is_a_file_of_keys_or_told_not_to_be(text: str) -> None:
    with contextlib.suppress(PenstockError):
        parse_keys(text)


@given(st.binary(min_size=32, max_size=40), st.text())
def test_a_key_is_found_by_itself_only(random: bytes, guess: str) -> None:
    token = make_token(random)
    key = Key(name="a", digest=digest_of(token), scopes=frozenset((Scope.CALLER,)))
    table = KeyTable((key,))
    assert table.find(token, 0) is key
    for wrong in (guess, token[:-1], token + "x", token.upper(), key.digest, key.id, ""):
        assert wrong == token or table.find(wrong, 0) is None


def test_a_digest_that_only_begins_alike_is_another() -> None:
    alike = digest_of(TOKEN)[:16] + "0" * 48
    table = KeyTable((Key(name="a", digest=alike, scopes=frozenset((Scope.CALLER,))),))
    assert table.find(TOKEN, 0) is None


def test_a_key_ends_when_it_expires() -> None:
    table = parse_keys(f"a {DIGEST} scopes=caller expires=2027-01-31")
    end = parse_moment("2027-01-31T00:00:00Z")
    key = table.find(TOKEN, end - 0.001)
    assert key is not None
    assert table.get(key.id, end - 0.001) is key
    assert table.find(TOKEN, end) is None
    assert table.get(key.id, end) is None
    assert table.get("nobody", 0) is None


def test_times_are_in_utc_unless_they_say_otherwise() -> None:
    at = parse_moment("2027-01-31T12:00:00Z")
    assert at == parse_moment("2027-01-31T12:00:00") == parse_moment("2027-01-31T14:00:00+02:00")


def test_a_key_is_long_and_says_what_it_is() -> None:
    assert TOKEN.startswith(KEY_PREFIX)
    assert len(TOKEN) - len(KEY_PREFIX) == 43  # 256 bits, 6 to a letter
    assert len({make_token(bytes((n,)) * 32) for n in range(256)}) == 256
    with pytest.raises(ValueError, match="32 bytes"):
        make_token(b"short")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("anna", "NAME sha256:DIGEST"),
        (f"anna {DIGEST}", "NAME sha256:DIGEST"),
        (f"anna {TOKEN} scopes=caller", "is this the key itself"),
        (f"anna {DIGEST[:-1]} scopes=caller", "64 hex digits"),
        (f"anna {DIGEST.upper()} scopes=caller", "does not begin with"),
        (f"-anna {DIGEST} scopes=caller", "no name"),
        (f"{'a' * 65} {DIGEST} scopes=caller", "no name"),
        (f"anna {DIGEST} scopes=", "no scope"),
        (f"anna {DIGEST} expires=2027-01-31", "no scope"),
        (f"anna {DIGEST} scopes=boss", "admin,caller,metrics,runner"),
        (f"anna {DIGEST} scopes=caller expires=soon", "no time"),
        (f"anna {DIGEST} scopes=caller expires=0001-01-01T00:00:00+23:00", "no time"),
        (f"anna {DIGEST} scopes=caller expires=9999-12-31T23:59:59-23:00", "no time"),
        (f"anna {DIGEST} scopes=caller commands=predict", "scope runner"),
        (f"anna {DIGEST} scopes=caller scopes=admin", "stands twice"),
        (f"anna {DIGEST} scopes=caller colour=blue", "none of scopes="),
        (f"anna {DIGEST} scopes=caller admin", "none of scopes="),
        (f"anna {DIGEST} scopes=caller\nben {DIGEST} scopes=caller", "line 2: ben and anna are one key"),
        (
            f"anna {DIGEST} scopes=caller\nanna {OTHER} scopes=caller",
            "line 2: there are two keys of the name",
        ),
    ],
)
def test_a_mistake_is_told_and_no_key_with_it(line: str, said: str) -> None:
    with pytest.raises(PenstockError, match=r"line [12]") as refused:
        parse_keys(line)
    assert said in str(refused.value)
    assert TOKEN not in str(refused.value)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(PenstockError) as refused:
        parse_keys(f"a b c\n# fine\nanna {DIGEST} scopes=caller\n-\n")
    assert [line.partition(":")[0] for line in str(refused.value).splitlines()] == ["line 1", "line 4"]
