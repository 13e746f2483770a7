"""`penstock new`: a project to start from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from penstock.cli.exits import Exit, fail

Folder = Annotated[Path, typer.Argument(help="The folder to make; its name becomes the project's.")]
Engine = Annotated[str, typer.Option(help="The engine that answers.")]

_MANIFEST = """\
name: {name}
version: 0.1.0
entrypoint: run.py
startup: [initialize]
"""

_RUN = '''\
"""{name}: a model served as a stream.  Start it with: penstock run ."""

from penstock import Runtime, engines

rt = Runtime("manifest.yml")


@rt.command("initialize")
def initialize(model: str = "{engine}"):
    """Load the model.  What is returned here reaches the commands below, by name."""
    return {{"engine": engines.open(model)}}


@rt.streaming_command("predict")
async def predict(prompt: str, max_tokens: int = 256, engine=None):
    """Answer a prompt piece by piece."""
    text = ""
    async for piece in engine.stream_text(prompt, max_tokens=max_tokens):
        text += piece
        yield {{"text": text, "chunk": piece, "finished": False}}
    yield {{"text": text, "chunk": "", "finished": True}}
'''


def new(folder: Folder, engine: Engine = "llamacpp:smollm2-135m") -> None:
    """Make a project folder with a manifest and a streaming command."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        fail(f"{folder} exists already; name a new folder", Exit.USAGE)
    name = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")
    if not name:
        fail(f"{folder.name!r} makes no project name: use letters and digits", Exit.USAGE)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.yml").write_text(_MANIFEST.format(name=name), encoding="utf-8")
    (folder / "run.py").write_text(_RUN.format(name=name, engine=engine), encoding="utf-8")
    print(f"made {folder}/manifest.yml and {folder}/run.py")
    print(f"next:  penstock run {folder}")
    print('then:  penstock call predict prompt="A fox" --stream')
