from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.protocol.clarifai.names import RAW, command_name
from penstock.protocol.runners import CommandName
from protocol.clarifai.kinds import unhurried

check = msgspec.convert


@pytest.mark.parametrize(
    ("model", "method", "name"),
    [
        ("toy", "predict", "toy.predict"),
        ("Llama-3_1", "openai_stream_transport", "Llama-3_1.openai_stream_transport"),
        ("_x", "PostModelOutputs", "_x.PostModelOutputs"),
        ("3d", "predict", "_3d-faadd34c.predict"),
        ("", "predict", "_-17e6fc87.predict"),
    ],
)
def test_a_method_is_a_command_of_its_model(model: str, method: str, name: str) -> None:
    assert command_name(model, method) == name


@unhurried
@given(st.text(max_size=80), st.text(max_size=80))
def test_every_name_is_one_of_a_command(model: str, method: str) -> None:
    assert check(command_name(model, method), CommandName)
    assert all(check(command_name(model, rpc), CommandName).endswith(f".{rpc}") for rpc in RAW)


@unhurried
@given(st.sets(st.tuples(st.text("3a-_ /", max_size=70), st.from_regex(r"[a-z_]{1,70}", fullmatch=True))))
def test_no_two_methods_share_one(methods: set[tuple[str, str]]) -> None:
    assert len({command_name(*method) for method in methods}) == len(methods)
