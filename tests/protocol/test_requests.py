"""HTTP bodies and WebSocket messages, read."""

from __future__ import annotations

import pytest

from penstock.protocol.messages import WireForm
from penstock.protocol.requests import (
    BadMessage,
    CommandMessage,
    read_body,
    read_default_body,
    read_message,
    read_workflow_body,
)


@pytest.mark.parametrize("given", [b"", b',"input":null', b',"input": null '])
def test_no_input_is_an_empty_one(given: bytes) -> None:
    assert read_body(b'{"command":"add"%b}' % given).start(WireForm.V2).input == b"{}"
    assert read_workflow_body(b'{"workflow_id":"w"%b}' % given).start(WireForm.V2).input == b"{}"
    message = read_message(b'{"type":"command","command":"add"%b}' % given)
    assert isinstance(message, CommandMessage)
    assert message.start(WireForm.V2).input == b"{}"


def test_an_input_is_passed_on_as_it_was_written() -> None:
    assert read_body(b'{"input":{"a": 1.0 }}').start(WireForm.V1).input == b'{"a": 1.0 }'


def test_a_body_for_the_default_command_may_name_anything() -> None:
    assert read_default_body(b'{"command":[1],"task_id":"a"}').start(WireForm.V1).task_id == "a"


def test_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(BadMessage):
        read_message('{"type":"ping","x":"\udc80"}')
