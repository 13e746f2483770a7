"""Caches are found by their names, and who listens hears of them."""

from __future__ import annotations

import gc

import pytest

from penstock.calls.caches import Caches
from penstock.calls.engine_cache import EngineCache
from penstock.errors import CallError, ErrorCode


def cache(name: str = "scripted") -> EngineCache:
    return EngineCache(name, 64)


def test_each_has_a_name_of_its_own() -> None:
    caches = Caches()
    first, second, third = cache(), cache(), cache()
    for each in (first, second, third):
        caches.add(each)
    assert [each.name for each in caches] == ["scripted", "scripted#2", "scripted#3"]
    caches.remove(second)
    caches.remove(second)
    assert caches.find("scripted#3") is third
    with pytest.raises(CallError) as missing:
        caches.find("scripted#2")
    assert missing.value.code is ErrorCode.NOT_FOUND


def test_the_only_one_needs_no_name() -> None:
    caches = Caches()
    with pytest.raises(CallError, match="there are none") as none:
        caches.find(None)
    assert none.value.code is ErrorCode.NOT_FOUND
    only = cache()
    caches.add(only)
    assert caches.find(None) is only
    another = cache()
    caches.add(another)
    with pytest.raises(CallError, match="scripted, scripted#2") as several:
        caches.find(None)
    assert several.value.code is ErrorCode.INVALID_ARGUMENT


def test_an_engine_that_is_gone_is_not_listed() -> None:
    caches, one = Caches(), cache()
    caches.add(one)
    assert tuple(caches) == (one,)
    del one
    gc.collect()
    assert tuple(caches) == ()


def test_who_listens_hears_of_what_comes_and_goes() -> None:
    caches, heard = Caches(), []
    end = caches.listen(lambda: heard.append(len(tuple(caches))))
    one = cache()
    caches.add(one)
    caches.remove(one)
    caches.remove(one)
    assert heard == [1, 0]
    end()
    caches.add(one)
    assert heard == [1, 0]
