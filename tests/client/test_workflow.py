"""Workflows through the client, over every transport."""

from __future__ import annotations

import pytest

from penstock.client import AsyncClient
from penstock.errors import CallError, ErrorCode

pytestmark = pytest.mark.anyio

OUTPUT = {"steps": {"count": {"n": 1}, "say": {"text": "last was 1"}}}


async def test_a_stream_gives_the_items_of_the_steps_then_the_output(client: AsyncClient) -> None:
    async with client.workflow("count_and_say", n=2) as stream:
        items = [item async for item in stream]
    assert items == [{"n": 0}, {"n": 1}, {"text": "last was 1"}, OUTPUT]


async def test_frames_name_their_step(client: AsyncClient) -> None:
    async with client.workflow("count_and_say", {"n": 1}) as stream:
        frames = [frame async for frame in stream.frames()]
    assert [frame.step for frame in frames if frame.status == "streaming"] == ["count", "say"]
    assert {frame.workflow_id for frame in frames} == {"count_and_say"}


async def test_run_workflow_returns_the_output(client: AsyncClient) -> None:
    assert await client.run_workflow("count_and_say", n=2) == OUTPUT


async def test_an_unknown_workflow_is_refused(client: AsyncClient) -> None:
    with pytest.raises(CallError) as refused:
        await client.run_workflow("count_and_sat", n=2)
    assert refused.value.code is ErrorCode.NOT_FOUND
    assert "count_and_say" in refused.value.message
