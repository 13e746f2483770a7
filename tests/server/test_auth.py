"""The keys of a running server follow their file, and never a broken one."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from behaviour.keyring import ANNA, BEN, EXPIRED, write_keys
from penstock.errors import PenstockError
from penstock.server.auth import LOOK_S, Keys, read_keys
from penstock.testing import FakeClock

posix = pytest.mark.skipif(os.name != "posix", reason="other systems have other permissions")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_keys(tmp_path / "keys.txt", ANNA)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_a_change_is_found_in_time(file: Path, clock: FakeClock) -> None:
    keys = Keys(file, clock)
    keys.watch()
    write_keys(file, ANNA, BEN)
    assert keys.find(BEN.token) is None
    clock.advance(LOOK_S)
    assert keys.find(BEN.token) == BEN.key
    write_keys(file, BEN)
    clock.advance(LOOK_S)
    assert keys.find(ANNA.token) is None
    assert keys.get(ANNA.key.id) is None
    assert keys.get(BEN.key.id) == BEN.key
    keys.close()
    write_keys(file, ANNA)
    clock.advance(10 * LOOK_S)
    assert keys.find(ANNA.token) is None


def test_a_file_that_is_replaced_is_a_change(file: Path, clock: FakeClock) -> None:
    keys = Keys(file, clock)
    keys.watch()
    before = file.stat()
    other = write_keys(file.with_name("other"), BEN)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))  # of the same time and size
    other.replace(file)
    clock.advance(LOOK_S)
    assert keys.find(BEN.token) == BEN.key
    keys.close()


@pytest.mark.parametrize("broken", ["mistake", "empty", "gone", "binary", "open"])
def test_a_broken_file_changes_nothing_but_the_log(
    file: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    keys = Keys(file, clock)
    keys.watch()
    _break(file, broken)
    clock.advance(LOOK_S)
    clock.advance(5 * LOOK_S)
    assert keys.find(ANNA.token) == ANNA.key
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1  # told once
    assert errors[0].startswith("the keys stay as they were")
    write_keys(file, BEN)
    clock.advance(LOOK_S)
    assert keys.find(ANNA.token) is None
    assert keys.find(BEN.token) == BEN.key
    keys.close()


@pytest.mark.parametrize("broken", ["mistake", "empty", "gone", "binary", "open"])
def test_a_broken_file_is_refused_at_the_start(file: Path, broken: str) -> None:
    _break(file, broken)
    with pytest.raises(PenstockError) as refused:
        Keys(file)
    assert str(file) in str(refused.value)


def _break(file: Path, how: str) -> None:
    if how == "gone":
        file.unlink()
    elif how == "open":
        if os.name != "posix":
            pytest.skip("other systems have other permissions")
        file.chmod(0o602)
        os.utime(file, ns=(1, 1))
    else:
        file.write_bytes({"mistake": b"anna\n", "empty": b"# nobody\n", "binary": b"\xff\xfe"}[how])


@posix
@pytest.mark.parametrize(("mode", "said"), [(0o620, "chmod 600"), (0o666, "chmod 600"), (0o602, "chmod 600")])
def test_a_file_that_others_may_write_is_refused(file: Path, mode: int, said: str) -> None:
    file.chmod(mode)
    with pytest.raises(PenstockError, match=said):
        read_keys(file)


@posix
@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_of_a_file_that_others_may_read_there_is_a_warning(
    file: Path, caplog: pytest.LogCaptureFixture, mode: int, warned: bool
) -> None:
    file.chmod(mode)
    Keys(file)
    assert [f"chmod 600 {file}" in record.getMessage() for record in caplog.records] == (
        [True] if warned else []
    )


def test_a_key_ends_while_the_server_runs(tmp_path: Path, clock: FakeClock) -> None:
    ends = clock.wall() + 10
    soon = EXPIRED.key.__class__(name="soon", digest=ANNA.key.digest, scopes=ANNA.key.scopes, expires_at=ends)
    file = tmp_path / "keys.txt"
    file.write_text(soon.line())
    file.chmod(0o600)
    keys = Keys(file, clock)
    assert keys.find(ANNA.token) is not None
    clock.advance(11)
    assert keys.find(ANNA.token) is None
    assert keys.get(soon.id) is None
