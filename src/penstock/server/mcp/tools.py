"""A command as a tool: what it takes, and what comes of a call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from mcp_types import CallToolResult, TextContent, Tool

from penstock.errors import CallError
from penstock.protocol.dispatch import Batch, Caller, CommandDescription, Dispatcher, LiveCall
from penstock.protocol.messages import CancelReason, Frame, Start, decode_frame
from penstock.protocol.openai_api.errors import error_of
from penstock.protocol.openai_api.pieces import piece_of

ADMINS = ("initialize", "cleanup")
"""Commands that make and drop the state of a project: no tools."""

Progress = Callable[[float, str], Awaitable[None]]
"""Is told how many items have come, and the text of the last ones."""


def tool_of(name: str, command: CommandDescription) -> Tool:
    """Return a command as a tool."""
    schema = {**command.input_schema, "type": "object"}
    return Tool(name=name, description=command.description or None, input_schema=schema)


async def call_tool(
    dispatcher: Dispatcher, caller: Caller, name: str, arguments: dict[str, Any], progress: Progress
) -> CallToolResult:
    """Run a command; whoever cancels this cancels it.  A refusal or failure is a result too: the model that
    asked can learn from it."""
    start = Start(command=name, input=msgspec.json.encode(arguments), is_stream=True)
    try:
        call = await dispatcher.open(start, caller)
    except CallError as error:
        return _failed(error)
    try:
        return await _read(call, progress)
    finally:
        if not call.state.terminal:
            call.cancel(CancelReason.CALLER)


async def _read(call: LiveCall, progress: Progress) -> CallToolResult:
    items: list[Any] = []
    async with call.reader() as reader:
        async for batch in reader:
            frames = [decode_frame(line) for line in batch.lines]
            new = [frame.data for frame in frames if frame.status == "streaming"]
            items += new
            if new:
                await progress(len(items), "".join(piece_of(item).text for item in new))
            if batch.ending is not None:
                return _result(batch, frames[-1], items)
    raise AssertionError("a call that is read from its beginning has an end")


def _result(batch: Batch, last: Frame, items: list[Any]) -> CallToolResult:
    assert batch.ending is not None
    if (error := error_of(batch.ending)) is not None:
        return _failed(error, items)
    if last.data is msgspec.UNSET:
        structured: Any = {"items": items}
        text = "".join(piece_of(item).text for item in items)
    else:
        structured = last.data if isinstance(last.data, dict) else {"result": last.data}
        text = piece_of(last.data).text
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=structured)


def _failed(error: CallError, items: list[Any] | None = None) -> CallToolResult:
    told = {"code": error.code.value, "retryable": error.retryable, **({"items": items} if items else {})}
    text = TextContent(type="text", text=error.message)
    return CallToolResult(content=[text], structured_content=told, is_error=True)
