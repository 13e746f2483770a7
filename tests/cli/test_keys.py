"""`penstock keys`: made, kept and shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cli.processes import Penstock
from penstock.cli.keys import add_key
from penstock.errors import PenstockError
from penstock.protocol.keys import Key, Scope, digest_of, parse_keys


def test_without_a_file_the_line_is_printed(penstock: Penstock) -> None:
    made = penstock(
        "keys", "new", "anna", "--scope", "admin", "--scope", "metrics", "--expires", "2027-01-31"
    )
    token, line = made.stdout.splitlines()
    (key,) = parse_keys(line)
    assert (key.name, key.digest) == ("anna", digest_of(token))
    assert key.scopes == {Scope.ADMIN, Scope.METRICS}
    assert "expires=2027-01-31T00:00:00Z" in line


def test_keys_are_added_to_a_file_and_shown(penstock: Penstock, tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_text("# ours")
    assert penstock("keys", "new", "anna", "--file", file).returncode == 0
    assert (
        penstock("keys", "new", "gpu", "--scope", "runner", "--command", "predict", "--file", file).returncode
        == 0
    )
    assert penstock("keys", "new", "old", "--expires", "2020-01-01", "--file", file).returncode == 0
    assert file.read_text().startswith("# ours\nanna  sha256:")
    assert list(tmp_path.iterdir()) == [file]
    shown = penstock("keys", "check", file)
    assert (shown.returncode, shown.stderr) == (0, "")
    anna, gpu, old = shown.stdout.splitlines()
    assert anna.startswith("anna  ")
    assert gpu.endswith("runner  offers predict")
    assert old.endswith("expired 2020-01-01 00:00 UTC")
    again = penstock("keys", "new", "anna", "--file", file)
    assert (again.returncode, again.stdout) == (1, "")
    assert "two keys of the name anna" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("new", "bad name"), "no name"),
        (("new", "anna", "--scope", "boss"), "no scope"),
        (("new", "anna", "--expires", "soon"), "no time"),
        (("new", "anna", "--command", "predict"), "scope runner"),
    ],
)
def test_what_makes_no_sense_makes_no_key(penstock: Penstock, arguments: tuple[str, ...], said: str) -> None:
    ended = penstock("keys", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in ended.stderr


def test_a_file_with_mistakes_is_told_with_its_lines(penstock: Penstock, tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_text("# fine\nanna\n")
    file.chmod(0o600)
    ended = penstock("keys", "check", file)
    assert ended.returncode == 1
    assert f"{file} has mistakes:\nline 2:" in ended.stderr
    ended = penstock("run", "--engine", "scripted:text=x", "--port", 0, "--auth-keys", file)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert f"{file} has mistakes" in ended.stderr
    assert "Traceback" not in ended.stderr
    gone = penstock("run", "--engine", "scripted:text=x", "--port", 0, "--auth-keys", tmp_path / "none")
    assert "penstock keys new" in gone.stderr


def key(name: str) -> Key:
    return Key(name=name, digest=digest_of(name), scopes=frozenset((Scope.CALLER,)))


@pytest.mark.skipif(os.name != "posix", reason="other systems have other permissions")
def test_what_is_written_is_private_and_a_link_stays_one(tmp_path: Path) -> None:
    file, link = tmp_path / "keys.txt", tmp_path / "link"
    link.symlink_to(file)
    add_key(link, key("anna"))
    file.chmod(0o644)
    add_key(link, key("ben"))
    assert link.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in parse_keys(file.read_text())] == ["anna", "ben"]


def test_two_who_write_at_once_do_not_meet(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    add_key(file, key("anna"))
    before = file.read_text()
    (tmp_path / "keys.txt.new").write_text("half")
    with pytest.raises(PenstockError, match=r"keys\.txt\.new is there"):
        add_key(file, key("ben"))
    assert file.read_text() == before
    assert (tmp_path / "keys.txt.new").read_text() == "half"


def test_a_file_that_cannot_be_written_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(PenstockError, match="cannot be written"):
        add_key(tmp_path / "none" / "keys.txt", key("anna"))
    file = tmp_path / "keys.txt"
    file.write_text("broken\n")
    with pytest.raises(PenstockError, match="nothing was added"):
        add_key(file, key("anna"))
    assert file.read_text() == "broken\n"
