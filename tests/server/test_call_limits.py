"""Every bound on calls is a setting."""

from __future__ import annotations

from dataclasses import fields

import pytest

from penstock.calls.limits import CallLimits
from penstock.server.settings import ServerSettings

NAMES = {field.name: {"in_flight": "max_calls"}.get(field.name, field.name) for field in fields(CallLimits)}


def test_the_defaults_are_the_same() -> None:
    assert ServerSettings().call_limits() == CallLimits()


@pytest.mark.parametrize(("name", "setting"), NAMES.items())
def test_each_is_taken_from_the_environment(name: str, setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"PENSTOCK_{setting.upper()}", "7")
    limits = vars(ServerSettings().call_limits())
    assert limits == {**vars(CallLimits()), name: 7}


@pytest.mark.parametrize("setting", NAMES.values())
def test_none_may_be_zero(setting: str) -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        ServerSettings(**{setting: 0})
