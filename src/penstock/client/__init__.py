"""Clients of penstock, over HTTP, over WebSocket and in process."""

from penstock.client.backoff import Retry
from penstock.client.blocking.client import Client
from penstock.client.blocking.stream import Stream
from penstock.client.client import AsyncClient
from penstock.client.request import CallOptions, CommandOptions, StreamOptions
from penstock.client.stream import AsyncStream
from penstock.client.transport import ServerHealth, Task

__all__ = [
    "AsyncClient",
    "AsyncStream",
    "CallOptions",
    "Client",
    "CommandOptions",
    "Retry",
    "ServerHealth",
    "Stream",
    "StreamOptions",
    "Task",
]
