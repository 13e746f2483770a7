"""The typed inference protocol in one page: a request, its stream of events, and the answer they add up to.

Run it with ``python examples/basic_usage.py``; it needs no server and no model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from penstock.protocol.inference import (
    Error,
    ErrorCode,
    Metrics,
    Request,
    StreamEvent,
    StreamEventDelta,
    StreamEventEnd,
    StreamEventStart,
    Timestamps,
    collect_response,
    dump_event_json,
    parse_stream_event,
    to_v01,
)

WORDS = ["The Rhine", ", the Po", " and the Ebro."]


def ask() -> Request:
    return Request(
        request_id="req-001",
        trace_id="trace-001",
        model="smollm2-135m",
        prompt="Name three rivers.",
        max_tokens=64,
        stream=True,
        temperature=0.7,
    )


def answer(request: Request) -> Iterator[StreamEvent]:
    """What an engine sends back: one start, the pieces, one end with everything in it."""
    ids: dict[str, Any] = {
        "request_id": request.request_id,
        "trace_id": request.trace_id,
        "engine_id": "example",
    }
    yield StreamEventStart(**ids, prompt_tokens=5)
    for number, word in enumerate(WORDS):
        yield StreamEventDelta(**ids, chunk=word, chunk_tokens=[number])
    times = Timestamps(queued_at=100.0, scheduled_at=100.01, executed_at=100.05, completed_at=100.11)
    yield StreamEventEnd(
        **ids,
        output_text="".join(WORDS),
        output_tokens=list(range(len(WORDS))),
        finish_reason="stop",
        metrics=Metrics(
            ttft_ms=round(times.ttft_s * 1000, 3),
            tbt_ms=20.0,
            throughput_tps=50.0,
            peak_mem_mb=512,
            error_rate=0.0,
            timestamps=times,
        ),
    )


def main() -> None:
    request = ask()
    print("The request:")
    print(request.model_dump_json(indent=2))

    print("\nIts events, one JSON object a line:")
    lines = [dump_event_json(event) for event in answer(request)]
    print("\n".join(lines))

    print("\nThe answer, collected from those lines:")
    print(collect_response(map(parse_stream_event, lines)).model_dump_json(indent=2))

    print("\nA failure, as it is and as a reader of v0.1 understands it:")
    error = Error(code=ErrorCode.CANCELLED, message="The caller went away.")
    print(error.model_dump_json())
    print(to_v01(error).model_dump_json())

    print("\nA request that is refused, with every mistake at once:")
    try:
        Request.model_validate({**request.model_dump(), "max_tokens": 0, "temperature": float("nan")})
    except ValidationError as refusal:
        for mistake in refusal.errors():
            print(f"{mistake['loc'][0]}: {mistake['msg']}")


if __name__ == "__main__":
    main()
