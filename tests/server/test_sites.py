"""Host and Origin: who may be meant, and which pages may speak."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import CallError, ErrorCode
from penstock.server.settings import ServerSettings
from penstock.server.sites import Sites, check_origin

LOOPBACK = [("127.0.0.1", 8000), ("127.0.0.1", 8765)]
HOST = b"127.0.0.1:8000"


def sites(*addresses: tuple[str, int], hosts: tuple[str, ...] = (), origins: tuple[str, ...] = ()) -> Sites:
    made = Sites(hosts, origins)
    made.listen_at(addresses or LOOPBACK)
    return made


def passes(checked: Sites, **headers: str) -> bool:
    given = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    refused = refusal(checked, given)
    if refused is not None:
        assert not any(value and value in refused.message for value in headers.values())  # nothing is echoed
    return refused is None


def refusal(checked: Sites, headers: dict[bytes, bytes]) -> CallError | None:
    try:
        checked.check(headers)
    except CallError as error:
        if error.code is not ErrorCode.PERMISSION_DENIED:
            raise
        return error
    return None


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:8000", "127.0.0.1", "localhost:8000", "LOCALHOST:9000", "localhost.", "[::1]:8000", "[::1]"],
)
def test_a_server_goes_by_its_own_names_at_any_port(host: str) -> None:
    assert passes(sites(), host=host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "evil.localhost",
        "127.0.0.1.evil.example:8000",
        "10.0.0.1:8000",
        "127.0.0.1@evil.example",
        "evil.example:127.0.0.1",
        "[::1].evil.example",
        "",
        "*",
        "0.0.0.0:8000",
        "[::ffff:127.0.0.1]:8000",
        "127.1",
        "localhost:8000, evil.example",
        "\xe9",
    ],
)
def test_it_goes_by_no_other(host: str) -> None:
    assert not passes(sites(), host=host)


def test_a_request_without_a_host_is_no_browser_s() -> None:
    assert passes(sites())


@pytest.mark.parametrize("bound", ["0.0.0.0", "::"])
@pytest.mark.parametrize(
    ("host", "good"),
    [("10.1.2.3:8000", True), ("[fd00::1]:8000", True), ("evil.example:8000", False), ("localhost", True)],
)
def test_on_every_address_each_number_is_its_own(bound: str, host: str, good: bool) -> None:
    assert passes(sites((bound, 8000)), host=host) is good


def test_more_names_are_given_by_name() -> None:
    assert passes(sites(hosts=("penstock.example",)), host="PENSTOCK.example:443")
    assert not passes(sites(hosts=("penstock.example",)), host="other.example")
    assert passes(sites(hosts=("*",)), host="other.example")


@pytest.mark.parametrize(
    "origin",
    [
        "http://127.0.0.1:8000",
        "http://localhost:8000",
        "http://localhost:8765",
        "http://[::1]:8765",
        "https://localhost:8000",
    ],
)
def test_own_pages_may_speak(origin: str) -> None:
    assert passes(sites(), host="127.0.0.1:8765", origin=origin)


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost",
        "http://localhost:3000",
        "http://evil.example:8000",
        "http://localhost:8000.evil.example",
        "http://localhost:80000",
        "null",
        "",
        "localhost:8000",
        "file://",
        "http://localhost:8000/",
        "http://127.0.0.1:8000 http://evil.example",
        "chrome-extension://abc",
    ],
)
def test_other_pages_may_not(origin: str) -> None:
    assert not passes(sites(), host="127.0.0.1:8000", origin=origin)


def test_a_port_that_goes_without_saying_is_left_out() -> None:
    checked = sites(("127.0.0.1", 80))
    assert passes(checked, host="localhost", origin="http://localhost")
    assert not passes(checked, host="localhost", origin="http://localhost:80")
    assert not passes(checked, host="localhost", origin="https://localhost")


def test_on_every_address_own_pages_are_of_the_one_that_was_asked() -> None:
    checked = sites(("0.0.0.0", 8000), ("0.0.0.0", 8765))
    assert passes(checked, host="10.1.2.3:8765", origin="http://10.1.2.3:8000")
    assert not passes(checked, host="10.1.2.3:8765", origin="http://10.1.2.4:8000")
    assert not passes(checked, host="10.1.2.3:8765", origin="http://10.1.2.3:3000")
    assert not passes(checked, host="evil.example:8000", origin="http://evil.example:8000")


def test_others_are_let_in_by_name() -> None:
    checked = sites(origins=("https://App.example", "null"))
    assert passes(checked, host="localhost:8000", origin="https://app.example")
    assert passes(checked, host="localhost:8000", origin="null")
    assert not passes(checked, host="localhost:8000", origin="https://app.example:444")
    assert not passes(checked, host="localhost:8000", origin="https://sub.app.example")
    assert passes(sites(origins=("*",)), host="localhost:8000", origin="https://any.example")


@pytest.mark.parametrize(
    ("site", "mode", "dest", "good"),
    [
        ("same-origin", "cors", "empty", True),
        ("none", "navigate", "document", True),
        ("cross-site", "navigate", "document", True),
        ("cross-site", "no-cors", "image", False),
        ("same-site", "no-cors", "script", False),
        ("cross-site", "navigate", "iframe", False),
        ("cross-site", "no-cors", "empty", False),
        ("anything", "no-cors", "empty", False),
    ],
)
def test_what_foreign_pages_embed_is_refused(site: str, mode: str, dest: str, good: bool) -> None:
    headers = {"sec_fetch_site": site, "sec_fetch_mode": mode, "sec_fetch_dest": dest}
    assert passes(sites(), host="localhost:8000", **headers) is good


@given(st.binary(), st.none() | st.binary())
def test_any_bytes_pass_or_are_refused(host: bytes, origin: bytes | None) -> None:
    for checked in (sites(), sites(("0.0.0.0", 8000))):
        refusal(checked, {b"host": host} | ({} if origin is None else {b"origin": origin}))


@pytest.mark.parametrize(
    "text", ["example.com", "https://", "https://a.example/path", "https://u@a.example", "a b"]
)
def test_what_is_no_origin_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(ValueError, match="is no origin"):
        check_origin(text)
    with pytest.raises(ValueError, match="is no origin"):
        ServerSettings(allow_origin=f"https://good.example,{text}")


@pytest.mark.parametrize(
    "text", ["*", "null", "https://a.example", "http://[::1]:3000", "https://a.example/"]
)
def test_what_is_an_origin_is_taken(text: str) -> None:
    assert check_origin(text) == text
