"""The gRPC server of a gateway: Clarifai's API version 2, as far as runners and the SDK's clients use it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from clarifai_grpc.grpc.api import service_pb2
from google.protobuf import message_factory
from grpc import aio

from penstock.calls.clock import Clock, SystemClock
from penstock.errors import CallError, PenstockError
from penstock.gateway.clarifai.annotations import Annotations, TasksGuard
from penstock.gateway.clarifai.assignments import Assignments
from penstock.gateway.clarifai.binding import Bindings
from penstock.gateway.clarifai.guard import Guard, check_known
from penstock.gateway.clarifai.replicas import Replicas
from penstock.gateway.clarifai.service import RunnerStreams
from penstock.gateway.clarifai.settings import LinkSettings
from penstock.gateway.hub import Hub
from penstock.protocol.clarifai.statuses import status_of

SERVICE = "clarifai.api.V2"
RUNNERS = "ProcessRunnerItems"
STOP_S = 1.0  # how long what is under way may take once all calls have ended
MAX_STREAMS = 1000  # on one connection: as many threads may a replica have, but for its control stream

_log = logging.getLogger("penstock.gateway")


@dataclass(frozen=True)
class Tls:
    """Files in PEM."""

    certificate: Path
    key: Path


class ClarifaiServer:
    """Serves runners and clients on a port of its own.

    Args:
        hub: Runs the calls.
        guard: Lets runners and clients in.
        host: Address to listen on.
        link: The port, and how runners are treated.
        bindings: Knows which models runners were announced for.
        clients: Objects whose methods are the RPCs of the API that are served besides, by their names; a
            method takes a request, or what gives them, and the RPC's context.
        tls: The server's certificate; without it nothing is encrypted.
        listening: Told where it listens.
        clock: Tells the time.
    """

    def __init__(
        self,
        hub: Hub,
        guard: Guard,
        host: str,
        link: LinkSettings,
        bindings: Bindings,
        clients: Sequence[object] = (),
        tls: Tls | None = None,
        listening: Callable[[str], None] = lambda _: None,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or SystemClock()
        assignments = Assignments(clock)
        self.replicas = Replicas(hub, link, bindings, clock, assignments)
        """Those that are there."""
        self._streams = RunnerStreams(hub, self.replicas, guard, clock)
        self._clients = (*clients, Annotations(assignments))
        self._guard = TasksGuard(guard, assignments)
        self._host = host
        self._link = link
        self._tls = tls
        self._listening = listening
        self._server: Any = None

    async def start(self) -> None:
        """Listen.

        Raises:
            PenstockError: The port cannot be had.
        """
        server = self._server = aio.server(options=_options(self._link))
        server.add_generic_rpc_handlers((Handlers(self._streams, self._clients, self._guard),))
        port = self._bind(server)
        await server.start()
        scheme = "http" if self._tls is None else "https"
        host = f"[{self._host}]" if ":" in self._host else self._host
        self._listening(f"{scheme}://{host}:{port}")

    def drain(self) -> None:
        """Take no more runners, as the gateway stops; those that are there finish their calls."""
        self.replicas.close()

    async def aclose(self) -> None:
        """Stop, once the hub has left its runners."""
        self.replicas.close()
        self._streams.close()
        if self._server is not None:
            await self._server.stop(STOP_S)

    def _bind(self, server: Any) -> int:
        host = f"[{self._host}]" if ":" in self._host else self._host
        where = f"{host}:{self._link.port or 0}"
        try:
            if self._tls is None:
                port = server.add_insecure_port(where)
            else:
                port = server.add_secure_port(where, _credentials(self._tls))
        except RuntimeError as error:
            text = "stop what uses it, or choose another with --clarifai-port"
            raise PenstockError(f"{where} cannot be listened on; {text}") from error
        return int(port)


class Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Finds what answers an RPC; what nobody answers is refused with UNIMPLEMENTED.

    Args:
        streams: Serves runners.
        clients: See ``ClarifaiServer``.
        guard: Looks at a client's key before its request is read.
    """

    def __init__(self, streams: RunnerStreams, clients: Sequence[object], guard: Guard) -> None:
        self._guard = guard
        # Messages of runners stay bytes: what cannot be parsed is theirs to answer for, by a typed error,
        # where gRPC would end the stream with INTERNAL and so the runner's thread.
        self._runners = grpc.stream_stream_rpc_method_handler(streams.serve)
        self._clients: dict[str, tuple[Any, Any]] = {}
        for name, method in service_pb2.DESCRIPTOR.services_by_name["V2"].methods_by_name.items():
            serve = next((getattr(one, name) for one in clients if hasattr(one, name)), None)
            if serve is not None and name != RUNNERS:
                self._clients[f"/{SERVICE}/{name}"] = method, _handler(method, serve)

    def service(self, handler_call_details: Any) -> Any:
        """Return what answers an RPC; None if nobody does."""
        if handler_call_details.method == f"/{SERVICE}/{RUNNERS}":
            return self._runners
        method, handler = self._clients.get(handler_call_details.method, (None, None))
        if method is not None:
            try:
                check_known(self._guard, handler_call_details.invocation_metadata)
            except CallError as error:
                return _refusing(method, error)
        return handler


def _refusing(method: Any, error: CallError) -> Any:
    """Return what answers an RPC with a refusal: whatever it takes, nothing of a request is read."""
    answer = message_factory.GetMessageClass(method.output_type)
    refused = answer(status=status_of(error)).SerializeToString()

    async def refuse(_: Any, context: Any) -> None:
        await context.write(refused)

    return grpc.stream_stream_rpc_method_handler(refuse)


_MAKERS: Mapping[tuple[bool, bool], Any] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def _handler(method: Any, serve: Any) -> Any:
    request = message_factory.GetMessageClass(method.input_type)
    answer = message_factory.GetMessageClass(method.output_type)
    make = _MAKERS[method.client_streaming, method.server_streaming]
    return make(serve, request_deserializer=request.FromString, response_serializer=answer.SerializeToString)


def _options(link: LinkSettings) -> list[tuple[str, int]]:
    keepalive_ms = round(link.keepalive_s * 1000)
    return [
        ("grpc.so_reuseport", 0),  # a port that another process has is an error
        ("grpc.max_receive_message_length", link.max_message),
        ("grpc.max_send_message_length", link.max_message),
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        # A connection that is dead without a word, or whose process is frozen, is found by nothing else.
        ("grpc.keepalive_time_ms", keepalive_ms),
        ("grpc.keepalive_timeout_ms", keepalive_ms),
        ("grpc.http2.ping_timeout_ms", keepalive_ms),  # else the longer of the two counts, a minute
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # Clients may look for dead connections as well.
        ("grpc.http2.min_ping_interval_without_data_ms", 1000),
        ("grpc.http2.max_ping_strikes", 0),
    ]


def _credentials(tls: Tls) -> Any:
    try:
        pair = tls.key.read_bytes(), tls.certificate.read_bytes()
    except OSError as error:
        raise PenstockError(f"{error.filename} cannot be read: {error.strerror}") from error
    return grpc.ssl_server_credentials((pair,))
