"""Ids are never the same twice, in whatever thread or process."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from penstock.calls.ids import new_id


def test_an_id_is_32_hex_digits() -> None:
    assert re.fullmatch("[0-9a-f]{32}", new_id())


def test_threads_get_different_ids() -> None:
    def some(_: int) -> list[str]:
        return [new_id() for _ in range(2000)]

    with ThreadPoolExecutor(4) as pool:
        ids = [one for batch in pool.map(some, range(8)) for one in batch]
    assert len(set(ids)) == 16_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_process_has_ids_of_its_own() -> None:
    new_id()  # so that some are ready
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write_end, "".join(new_id() for _ in range(8)).encode())
        os._exit(0)
    os.close(write_end)
    with open(read_end, encoding="ascii") as pipe:
        theirs = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    assert len(theirs) == 8 * 32
    ours = {new_id() for _ in range(600)}
    assert not ours & {theirs[at : at + 32] for at in range(0, len(theirs), 32)}
