"""Other servers: an environment for each, made from its pinned requirements."""

from __future__ import annotations

import http.client
import json
import random
import re
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from workloads import HERE

VENVS = HERE / "peers" / ".venv"
NAMES = tuple(sorted(path.parent.name for path in (HERE / "peers").glob("*/requirements.txt")))
START_S = 120.0  # Ray starts a dozen processes
ASK_S = 10.0
PORTS = range(20_000, 32_000)  # below those that Linux gives to connections
PRINT = "from versions import *; print(json.dumps(versions((*PACKAGES, *PEERS))))"
MAKE = HERE.parent / "scripts" / "venv.sh"


def named(text: str) -> list[str]:
    """Return the peers that a text names: `all`, `none`, or names between commas or spaces.

    Raises:
        ValueError: There is no such peer.
    """
    if text in ("all", "none"):
        return list(NAMES) if text == "all" else []
    names = re.findall(r"[^\s,]+", text)
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise ValueError(f"no peer {', '.join(unknown)}; there are {', '.join(NAMES)}, and `all` or `none`")
    return names


def python_of(name: str) -> Path:
    """Return the interpreter of a peer's own environment, which may not be there."""
    return VENVS / name / "bin" / "python"


def prepare(names: list[str]) -> dict[str, str]:
    """Make the environments that are not there; return what went wrong, by peer."""
    failed = {}
    for name in names:
        pinned = (HERE / "peers" / name / "requirements.txt").read_text()
        made_from = VENVS / name / "requirements.txt"
        if made_from.is_file() and made_from.read_text() == pinned:
            continue
        print(f"making the environment of {name}", file=sys.stderr)
        wrong = _make(name)
        if wrong:
            failed[name] = wrong
        else:
            made_from.write_text(pinned)
    return failed


def _make(name: str) -> str:
    VENVS.mkdir(parents=True, exist_ok=True)
    install = (str(python_of(name)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    steps = (
        (str(MAKE), str(VENVS / name), getattr(sys, "_base_executable", sys.executable)),
        (*install, "-r", str(HERE / "peers" / name / "requirements.txt")),
    )
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            return "it cannot be installed here" + (f": {lines[0][:200]}" if lines else "")
    return ""


def versions_of(name: str) -> dict[str, str]:
    """Return the versions that a peer's environment has of what it pins."""
    code = f"import json, sys; sys.path.insert(0, {str(HERE / 'apps')!r}); {PRINT}"
    done = subprocess.run([str(python_of(name)), "-c", code], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def free_port() -> int:
    """Return a port that nothing listens on, and that no connection gets as its own meanwhile.

    Raises:
        OSError: There is none.
    """
    for port in random.sample(PORTS, 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError(f"no port of 100 in {PORTS} is free")


def wait_until_it_answers(process: subprocess.Popen[str], port: int, path: str) -> None:
    """Ask until there is an answer.

    Raises:
        TimeoutError: It has ended, or does not answer.
    """
    until = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < until:
        if _answers(port, path):
            return
        time.sleep(0.2)
    raise TimeoutError(f"it has not answered in {START_S:g} s, or has ended")


def _answers(port: int, path: str) -> bool:
    asking = http.client.HTTPConnection("127.0.0.1", port, timeout=ASK_S)
    try:
        asking.request("POST", path, json.dumps({"prompt": "hello"}), {"content-type": "application/json"})
        answer = asking.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        asking.close()
    return answer.status == 200
