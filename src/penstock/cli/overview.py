"""What a server tells of its calls, by its own clock."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from penstock.client.http import is_loopback
from penstock.client.http_reply import distrusted, foreign, refusal
from penstock.client.transport import Task
from penstock.errors import ConnectionFailed

PATIENCE_S = 10.0

_GAUGES = {
    "penstock_calls_running": "running",
    "penstock_permits": "permits",
    "penstock_calls_queued": "queued",
    "penstock_queue_places": "places",
}


class _Tasks(msgspec.Struct):
    tasks: list[Task]
    timestamp: float


class Look(NamedTuple):
    """What there was at one moment.

    Attributes:
        at: When, in Unix seconds of the server.
        calls: Those under way, oldest first.
        loads: By command: how many ``running`` of ``permits``, ``queued`` of ``places``; None if this caller
            may not see that, or the server does not count.
    """

    at: float
    calls: Sequence[Task]
    loads: Mapping[str, Mapping[str, int]] | None


class Overview:
    """Asks a server what runs there.

    Args:
        url: The server; its key is in ``PENSTOCK_API_KEY``.
        tls: What its certificate is judged by.

    Raises:
        ValueError: ``url`` is none.
    """

    def __init__(self, url: str, tls: ssl.SSLContext | None) -> None:
        self._url = f"http{url[2:]}" if url.startswith(("ws:", "wss:")) else url
        try:
            parsed = httpx.URL(self._url)
        except httpx.InvalidURL as error:
            raise ValueError(f"{url!r} is no server's URL ({error})") from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ValueError(f"{url!r} is no server's URL; write it like http://127.0.0.1:8000")
        key = os.environ.get("PENSTOCK_API_KEY")
        self._http = httpx.Client(
            base_url=parsed,
            headers={} if key is None else {"authorization": f"Bearer {key}"},
            timeout=PATIENCE_S,
            verify=tls or True,
            trust_env=not is_loopback(parsed),
        )

    def __enter__(self) -> Overview:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def look(self) -> Look:
        """Return what there is now.

        Raises:
            CallError: The server refuses.
            RemoteProtocolError: It is none of penstock's.
            ConnectionFailed: Nobody answers.
        """
        found = _decoded(self._ask("GET", "/tasks"), _Tasks)
        calls = sorted((task for task in found.tasks if task.finished_at is None), key=_accepted)
        return Look(found.timestamp, calls, self._loads())

    def cancel(self, task_id: str) -> str:
        """Cancel a call; return what became of it, in words.

        Raises:
            CallError: ``not_found``, or another refusal.
            ConnectionFailed: Nobody answers.
        """
        reply = self._ask("POST", f"/tasks/{quote(task_id, safe='')}/cancel")
        outcome: Mapping[str, Any] = _decoded(reply, dict[str, Any])
        return f"{task_id}: {str(outcome.get('outcome')).replace('_', ' ')}"

    def _loads(self) -> Mapping[str, Mapping[str, int]] | None:
        reply = self._send("GET", "/metrics")
        if reply.status_code != 200:
            return None
        try:
            families = list(text_string_to_metric_families(reply.text))
        except ValueError as error:
            raise foreign(reply, reply.content) from error
        loads: dict[str, dict[str, int]] = {}
        for family in families:
            if (gauge := _GAUGES.get(family.name)) is not None:
                for sample in family.samples:
                    loads.setdefault(sample.labels.get("command", ""), {})[gauge] = int(sample.value)
        return loads

    def _ask(self, method: str, path: str) -> httpx.Response:
        reply = self._send(method, path)
        if reply.status_code != 200:
            raise refusal(reply, reply.content)
        return reply

    def _send(self, method: str, path: str) -> httpx.Response:
        try:
            return self._http.request(method, path)
        except httpx.HTTPError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise distrusted(self._url, str(error)) from error
            raise ConnectionFailed(f"no server answers at {self._url} ({error})") from error


def _accepted(task: Task) -> float:
    return task.accepted_at


def _decoded(reply: httpx.Response, kind: Any) -> Any:
    try:
        return msgspec.json.decode(reply.content, type=kind)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise foreign(reply, reply.content) from error
