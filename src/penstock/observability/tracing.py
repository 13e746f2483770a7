"""A span for each call and each step, in OpenTelemetry's words for generative AI (extra ``otel``).

What a span tells is what is counted: names, sizes and times, never what a caller or a model says.
Source: OpenTelemetry semantic conventions for generative AI, "Spans"; W3C Trace Context.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry import trace
from opentelemetry.propagate import extract, inject
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace import Tracer as Library

from penstock.calls.live import Live
from penstock.calls.observer import Observer
from penstock.protocol.call import State

TRACE_PARENT = "traceparent"

_OF_REPORT = {  # what an engine tells, under the names of the conventions
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
}


class Tracing(Observer):
    """Makes the spans.

    Args:
        library: Starts them.
        flush: Sends what has not left yet.
    """

    def __init__(self, library: Library, flush: Callable[[], None] = lambda: None) -> None:
        self._library = library
        self._flush = flush
        self._spans: dict[str, Span] = {}

    def __len__(self) -> int:
        return len(self._spans)

    def accepted(self, live: Live) -> None:
        """See ``Observer.accepted``: the span begins, and what is done for the call stands below it."""
        above = {} if live.trace_parent is None else {TRACE_PARENT: live.trace_parent}
        kind = "workflow" if live.start.workflow_id is not None else "command"
        span = self._library.start_span(
            live.start.target,
            context=extract(above),
            kind=SpanKind.SERVER,
            attributes={
                f"penstock.{kind}": live.start.target,
                "penstock.request_id": live.request_id,
                "penstock.task_id": live.task_id,
            },
        )
        self._spans[live.request_id] = span
        told: dict[str, str] = {}
        inject(told, context=trace.set_span_in_context(span))
        live.trace_parent = told.get(TRACE_PARENT, live.trace_parent)

    def started(self, live: Live, waited_s: float) -> None:
        """See ``Observer.started``."""
        self._event(live, "started", {"penstock.queue_s": waited_s})

    def first_item(self, live: Live, after_s: float) -> None:
        """See ``Observer.first_item``."""
        self._event(live, "first_item", {})
        if (span := self._spans.get(live.request_id)) is not None:
            span.set_attribute("gen_ai.response.time_to_first_chunk", after_s)

    def cancelled(self, live: Live) -> None:
        """See ``Observer.cancelled``."""
        assert live.cancel_reason is not None
        self._event(live, "cancelled", {"penstock.reason": live.cancel_reason.value})

    def ended(self, live: Live, total_s: float) -> None:
        """See ``Observer.ended``; a span of work that was cancelled ends once that has stopped."""
        if live.cut is None or live.stopped:
            self._end(live)

    def stuck(self, live: Live) -> None:
        """See ``Observer.stuck``: nobody knows when it will stop."""
        self._event(live, "stuck", {})
        self._end(live)

    def stopped(self, live: Live, after_s: float | None) -> None:
        """See ``Observer.stopped``."""
        self._end(live)

    def close(self) -> None:
        """See ``Observer.close``."""
        self._flush()

    def _event(self, live: Live, name: str, about: dict[str, Any]) -> None:
        if (span := self._spans.get(live.request_id)) is not None:
            span.add_event(name, about)

    def _end(self, live: Live) -> None:
        ending = live.ending
        if ending is None or (span := self._spans.pop(live.request_id, None)) is None:
            return
        span.set_attribute("penstock.status", ending.state.label)
        span.set_attribute("penstock.items", live.items())
        if live.engine_report is not None:
            _tell_usage(span, live.engine_report.fields())
        if ending.error is not None:
            span.set_attribute("error.type", ending.error.code.value)
        if ending.state is not State.COMPLETED:
            span.set_status(Status(StatusCode.ERROR, ending.state.label))
        span.end()


def open_tracing() -> Tracing:
    """Return what sends spans, in batches, to where the environment says: ``OTEL_EXPORTER_OTLP_ENDPOINT``,
    ``OTEL_SERVICE_NAME``, ``OTEL_TRACES_SAMPLER`` and the others of OpenTelemetry's."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource({SERVICE_NAME: "penstock"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider.get_tracer("penstock"), provider.shutdown)


def _tell_usage(span: Span, report: dict[str, Any]) -> None:
    for name, attribute in _OF_REPORT.items():
        if name in report:
            span.set_attribute(attribute, report[name])
    if "finish_reason" in report:
        span.set_attribute("gen_ai.response.finish_reasons", (report["finish_reason"],))
