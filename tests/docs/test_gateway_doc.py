"""docs/gateway.md has every setting, route, close code and message of a gateway."""

from __future__ import annotations

import json
import re
from typing import get_args

from docs.pages import DOCS, codes, fences, table
from penstock.compose import build_gateway
from penstock.gateway import runner_link
from penstock.gateway.settings import GatewaySettings
from penstock.protocol.requests import read_body
from penstock.protocol.runners import MAX_HELLO, Refusal, RunnerHello, Welcome
from penstock.protocol.session import Configure, Hello, Message
from penstock.server.settings import ServerSettings

PAGE = DOCS / "gateway.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_every_setting_has_its_row_with_its_default() -> None:
    rows = {codes(row["variable of a gateway"])[0]: row for row in table(PAGE, "variable of a gateway")}
    fields = GatewaySettings.model_fields
    assert rows.keys() == {f"PENSTOCK_GATEWAY_{name.upper()}" for name in fields}
    for name, field in fields.items():
        assert codes(rows[f"PENSTOCK_GATEWAY_{name.upper()}"]["default"]) == [str(field.default)]


def test_every_route_is_named() -> None:
    _, extension = build_gateway("gateway", ServerSettings())
    for route in extension.routes:
        assert f"{route.path.replace('{id}', '{name}')}`" in TEXT or route.path in TEXT
        for method in route.handlers:
            assert method in TEXT
    assert all(f"`{path}`" in TEXT for path in extension.hosts)


def test_every_message_is_named() -> None:
    link = {kind for kind in get_args(Message) if kind not in (Configure, Hello)}
    for kind in link:
        assert f"`{kind.__struct_config__.tag}`" in TEXT, kind
    for first in (RunnerHello, Welcome, Refusal):
        assert f'"type": "{first.__struct_config__.tag}"' in TEXT
        for field in first.__struct_fields__:
            assert f'"{field}"' in TEXT, field
    assert MAX_HELLO == 4 * 1024 * 1024


def test_every_close_code_has_its_row() -> None:
    ours = {*runner_link.CLOSE_CODES.values(), 1011}
    assert {int(row["close code"]) for row in table(PAGE, "close code")} == ours


def test_clauses_are_numbered_in_order() -> None:
    numbers = [int(number) for number in re.findall(r"^\*\*(\d+)\*\* ", TEXT, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_the_bodies_can_be_read() -> None:
    bodies = [fence.body for fence in fences(PAGE) if fence.info == "json"]
    assert bodies
    for body in bodies:
        route = read_body(body.encode()).start.__self__.route
        assert route is not None
        assert json.loads(body)["route"]["labels"] == route.labels
