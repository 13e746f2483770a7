"""YAML with its lines: values, lines, and every way a file can be wrong."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.errors import ManifestError
from penstock.runtime.manifest_lines import MAX_BYTES, MAX_VALUES, Document, read_document


def read(folder: Path, text: str | bytes) -> Document:
    path = folder / "manifest.yml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_document(path)


def refusal(folder: Path, text: str | bytes) -> str:
    with pytest.raises(ManifestError) as refused:
        read(folder, text)
    return str(refused.value).removeprefix(str(folder))


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("on", "on"),
        ("No", "No"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("-3", -3),
        ("1.10", 1.1),
        (".5", 0.5),
        ("1e3", 1000.0),
        (".inf", ".inf"),
        ("True", True),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ("!!str 1", "1"),
        ("<<", "<<"),
    ],
)
def test_scalars_are_read_as_yaml_1_2_does(tmp_path: Path, written: str, value: Any) -> None:
    read_value = read(tmp_path, f"key: {written}\n").value["key"]
    assert read_value == value
    assert type(read_value) is type(value)


def test_keys_are_text_as_they_are_written(tmp_path: Path) -> None:
    assert read(tmp_path, "on: 1\n1.0: 2\nnull: 3\n").value == {"on": 1, "1.0": 2, "null": 3}


def test_a_place_has_the_line_of_its_key(tmp_path: Path) -> None:
    document = read(tmp_path, "a: 1\nb:\n\n  c:\n    - x\n    - {d: 1,\n       e: 2}\n")
    lines = {place: document.where(place).rpartition(":")[2] for place in document.lines}
    assert lines == {
        (): "1",
        ("a",): "1",
        ("b",): "2",
        ("b", "c"): "4",
        ("b", "c", 0): "5",
        ("b", "c", 1): "6",
        ("b", "c", 1, "d"): "6",
        ("b", "c", 1, "e"): "7",
    }
    assert document.where(("b", "c", 1, "nowhere")).endswith(":6")


def test_what_is_merged_gives_way_to_what_is_written(tmp_path: Path) -> None:
    text = "base: &b {x: 1, y: 2}\nmore: &m {y: 3, z: 4}\nown:\n  x: '5'\n  <<: [*b, *m]\n"
    document = read(tmp_path, text)
    assert document.value["own"] == {"y": 2, "z": 4, "x": "5"}
    assert document.where(("own", "x")).endswith(":4")
    assert ("own", "x") not in document.written


def test_an_empty_file_has_no_value(tmp_path: Path) -> None:
    assert read(tmp_path, "# nothing\n").value is None


BOMB = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
)
MERGE_BOMB = "a0: &a0 {}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: 2\na: 3\n", ":3: a stands here again, first on line 1; keep one"),
        ("a:\n\tb: 1\n", ":2: a tab; YAML indents with spaces, so replace it"),
        ("a: 1\n---\nb: 2\n", ":2: a second document begins here; a manifest is one, so remove the `---`"),
        ("a: 1\nb: 'x\n", "this is not YAML: found unexpected end of stream"),
        ("a: {b: 1\nc: 2\n", ":2: this is not YAML: expected ',' or '}'"),
        ("a: *x\n", ":1: this is not YAML: found undefined alias 'x'"),
        (b"a: 1\nb: \xff\n", ":2: this is not UTF-8 text; save the file as UTF-8"),
        ("a: 1\nb: \x00\n", ":2: a control character; remove what stands in column 4"),
        ("a: !!python/object:os.system x\n", ":1: the tag tag:yaml.org,2002:python/object:os.system has no"),
        ("a: !!set {x, y}\n", ":1: the tag tag:yaml.org,2002:set has no meaning in a manifest; remove it"),
        ("a: !!binary aGk=\n", ":1: the tag tag:yaml.org,2002:binary has no meaning"),
        ("? [a, b]\n: c\n", ":1: a key is plain text"),
        ("a: !!int abc\n", ":1: abc is not a number that can be read"),
        ("a: 1e999\n", ":1: 1e999 is more than a number can be"),
        ("a: 1\n<<: [x]\n", ":2: `<<` takes a mapping"),
        ("a: &a [*a]\n", ":1: too many or too deeply nested values"),
        ("a: &a\n  <<: *a\n", "nested too deeply"),
        (MERGE_BOMB, "too many or too deeply nested values"),
        (BOMB, "too many or too deeply nested values (an alias that repeats itself?)"),
        ("[" * 5000, "nested too deeply"),
        ("a: 1" + " " * MAX_BYTES, f"a manifest has at most {MAX_BYTES}"),
    ],
)
def test_what_is_no_manifest_is_told_with_its_line(tmp_path: Path, text: str | bytes, says: str) -> None:
    assert says in refusal(tmp_path, text)


def test_as_many_values_as_allowed_are_read(tmp_path: Path) -> None:
    fitting = "[" + "1," * (MAX_VALUES - 1) + "]"
    assert len(read(tmp_path, fitting).value) == MAX_VALUES - 1
    assert "too many" in refusal(tmp_path, "[" + "1," * MAX_VALUES + "]")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="cannot be read: No such file"):
        read_document(tmp_path / "none.yml")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet="ab:-[]{}&*!<>|'\"#%@`,?~ \n\t1.0", max_size=60))
def test_any_text_is_read_or_refused(tmp_path: Path, text: str) -> None:
    with suppress(ManifestError):
        document = read(tmp_path, text)
        assert document.value is None or document.lines
