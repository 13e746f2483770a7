"""Who can reach a server at all: what it listens on, and that it says so."""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from behaviour.keyring import ANNA, BEN, Holder, write_keys
from behaviour.promises import promise
from cli.conftest import penstock, serve  # noqa: F401 - fixtures
from cli.processes import Penstock, Serve, Server
from penstock.errors import PenstockError
from penstock.server.host import listen_all
from penstock.server.settings import ServerSettings

LISTEN = "0A"  # in /proc/net/tcp
EVERYWHERE = ("0.0.0.0", "::", "")
ENGINE = ("--engine", "scripted:text=one")
needs_proc = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="no /proc/net/tcp on this system")


def processes(root: int) -> set[int]:
    """Return a process and all that came out of it."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it has just ended
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def listening(root: int) -> set[int]:
    """Return the TCP ports that a process and its children listen on, as the kernel knows them."""
    inodes = set()
    for pid in processes(root):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                inodes |= set(re.findall(r"socket:\[(\d+)\]", os.readlink(link)))
            except OSError:
                continue
    ports = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTEN and fields[9] in inodes:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def declared(server: Server) -> set[int]:
    return {urlsplit(url).port or 0 for url in server.urls}


@needs_proc
@promise("P32")
@pytest.mark.parametrize("more", [(), ("--ws-port", 0), ("--workers", 2)])
def test_every_listener_is_declared_at_the_start(serve: Serve, more: tuple[object, ...]) -> None:  # noqa: F811
    server = serve(*ENGINE, *more)
    assert declared(server) == listening(server.process.pid)
    assert len(declared(server)) == (2 if "--ws-port" in more else 1)


@promise("P30", "P32")
def test_both_ports_need_a_key(serve: Serve, tmp_path: Path) -> None:  # noqa: F811
    keys = write_keys(tmp_path / "keys.txt", ANNA)
    server = serve(*ENGINE, "--ws-port", 0, "--auth-keys", keys)
    assert len(server.urls) == 2
    for url in server.urls:
        for path in ("/tasks", "/v2/commands", "/metrics", "/openapi.json", "/nowhere"):
            assert httpx.get(url + path).status_code == 401
        assert httpx.get(f"{url}/tasks", headers=ANNA.headers).status_code == 200
        assert httpx.get(f"{url}/livez").json() == {"status": "healthy"}


@promise("P32")
@pytest.mark.parametrize("host", EVERYWHERE)
def test_an_address_others_reach_is_not_listened_on_without_keys(host: str) -> None:
    with pytest.raises(PenstockError, match="--auth-keys") as refused:
        listen_all(ServerSettings(host=host, port=0))
    assert "--insecure-open" in str(refused.value)


@promise("P32")
@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_what_only_this_machine_reaches_needs_no_keys(host: str) -> None:
    for listener in listen_all(ServerSettings(host=host, port=0)):
        listener.close()


@promise("P32")
@pytest.mark.parametrize("host", EVERYWHERE)
@pytest.mark.parametrize("how", ["keys", "by name"])
def test_with_keys_or_by_name_it_is(host: str, how: str, tmp_path: Path) -> None:
    given = {"auth_keys": tmp_path} if how == "keys" else {"insecure_open": True}
    for listener in listen_all(ServerSettings(host=host, port=0, **given)):
        listener.close()


@promise("P32")
def test_a_name_is_what_it_stands_for(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.1.2.3", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(PenstockError, match="can be reached by others"):
        listen_all(ServerSettings(host="my-machine", port=0))


@promise("P32")
def test_the_command_refuses_and_says_what_to_do(penstock: Penstock) -> None:  # noqa: F811
    ended = penstock("run", *ENGINE, "--host", "0.0.0.0", "--port", 0)
    assert (ended.returncode, ended.stdout) == (1, "")
    for words in ("0.0.0.0 can be reached by others", "penstock keys new", "--auth-keys", "--insecure-open"):
        assert words in ended.stderr
    assert "Traceback" not in ended.stderr


@promise("P30")
@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no SIGHUP on this system")
def test_a_key_is_taken_back_without_a_restart(serve: Serve, tmp_path: Path) -> None:  # noqa: F811
    keys = write_keys(tmp_path / "keys.txt", ANNA, BEN)
    server = serve(*ENGINE, "--auth-keys", keys)
    assert _answered(server.url, ANNA) == 200
    keys.write_text("nonsense\n")
    server.process.send_signal(signal.SIGHUP)
    assert server.process.stderr is not None
    told = server.process.stderr.readline()
    assert "the keys stay as they were" in told
    assert _answered(server.url, ANNA) == 200
    assert "nonsense" not in told
    write_keys(keys, BEN)
    server.process.send_signal(signal.SIGHUP)
    while "1 keys read" not in server.process.stderr.readline():
        pass
    assert (_answered(server.url, ANNA), _answered(server.url, BEN)) == (401, 200)
    assert server.stop() == 0


def _answered(url: str, who: Holder) -> int:
    return httpx.get(f"{url}/tasks", headers=who.headers).status_code


@promise("P31")
def test_a_key_is_kept_nowhere_but_by_who_has_it(
    penstock: Penstock,  # noqa: F811
    serve: Serve,  # noqa: F811
    tmp_path: Path,
) -> None:
    file = tmp_path / "keys.txt"
    made = penstock("keys", "new", "anna", "--file", file)
    token = made.stdout.strip()
    assert made.returncode == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert token not in file.read_text() + made.stderr
    server = serve(*ENGINE, "--auth-keys", file)
    said = penstock("call", "predict", "prompt=x", "--stream", "--url", server.url, PENSTOCK_API_KEY=token)
    assert (said.returncode, said.stdout) == (0, "one\n")
    refused = penstock("call", "predict", "prompt=x", "--url", server.url)
    assert refused.returncode == 1
    assert "unauthenticated" in refused.stderr
    over_socket = server.url.replace("http", "ws")
    said = penstock("call", "predict", "prompt=x", "--stream", "--url", over_socket, PENSTOCK_API_KEY=token)
    assert said.stdout == "one\n"
    refused = penstock("call", "predict", "prompt=x", "--url", over_socket)
    assert "a key is needed" in refused.stderr
    assert server.stop() == 0
    assert server.process.stderr is not None
    assert token not in server.process.stderr.read()
