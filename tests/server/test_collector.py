"""The garbage collector is made calm for a server's life, and left as it was found."""

from __future__ import annotations

import gc

import pytest

from penstock.server.collector import RARELY, rare_collections


def test_collections_are_rare_inside_and_as_before_outside() -> None:
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    with rare_collections():
        assert gc.get_threshold() == RARELY
        assert gc.get_freeze_count() > frozen
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, 0)


def test_an_error_inside_changes_nothing_outside() -> None:
    before = gc.get_threshold()
    with pytest.raises(ValueError), rare_collections():
        raise ValueError
    assert gc.get_threshold() == before
