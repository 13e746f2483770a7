"""What the tests of the playground call."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from penstock import CommandError, Runtime

rt = Runtime("manifest.yml")
GATE = asyncio.Semaphore(0)


class Point(BaseModel):
    """A place."""

    x: int
    y: int = 0


@rt.streaming_command("tell")
async def tell(words: str, pause_ms: Annotated[int, Field(ge=0, le=1000)] = 0):
    """Say the words one by one."""
    text = ""
    for word in words.split(" "):
        text += word + " "
        yield {"text": text, "chunk": word + " ", "finished": False}
        await asyncio.sleep(pause_ms / 1000)
    yield {"text": text, "chunk": "", "finished": True}


@rt.streaming_command("gated")
async def gated(words: str):
    """Say the words one by one, the next one when somebody says `go`."""
    text = ""
    for word in words.split(" "):
        text += word + " "
        yield {"text": text, "chunk": word + " "}
        await GATE.acquire()


@rt.command("go")
async def go(times: int = 1):
    """Let words pass."""
    for _ in range(times):
        GATE.release()
    return {"passed": times}


@rt.streaming_command("revise")
async def revise():
    """Give all of the text each time, and change it in the end."""
    for text in ("It", "It is", "It is so.", "Or not."):
        yield {"text": text}


@rt.streaming_command("tokens")
async def tokens(n: Annotated[int, Field(ge=1)] = 10000, line: Annotated[int, Field(ge=1)] = 40):
    """Stream so many tokens, as fast as they are taken, of which so many are a line."""
    for number in range(n):
        yield {"chunk": f"token{number}{chr(10) if number % line == line - 1 else ' '}"}
        if number % 50 == 0:
            await asyncio.sleep(0)


@rt.streaming_command("chat", openai="chat")
async def chat(messages: list[dict[str, Any]], tone: Literal["plain", "loud"] = "plain"):
    """Answer with what was said, and how often there was something to answer."""
    said = [message["content"] for message in messages if message["role"] == "user"]
    system = [message["content"] for message in messages if message["role"] == "system"]
    for word in [f"{len(said)}: ", *system, said[-1].upper() if tone == "loud" else said[-1]]:
        yield {"chunk": word}


@rt.command("all")
def every_kind(
    name: Annotated[str, Field(min_length=2, max_length=20, description="What it is called")],
    count: Annotated[int, Field(ge=1, le=9)],
    share: float = 0.5,
    on: bool = False,
    maybe: bool | None = None,
    colour: Literal["red", "green"] = "red",
    words: list[str] | None = None,
    place: Point | None = None,
    data: bytes = b"",
    stop: str | list[str] | None = None,
):
    """Take a value of every kind, and give it back."""
    told = {"name": name, "count": count, "share": share, "on": on, "maybe": maybe, "colour": colour}
    at = None if place is None else place.model_dump()
    return {**told, "words": words, "place": at, "data": list(data), "stop": stop}


@rt.command("shout")
def shout(text: str):
    """Give the text back in capitals."""
    return {"text": text.upper()}


@rt.command("echo")
def echo(value: Any):
    """Give the value back."""
    return {"value": value}


@rt.command("fail")
def fail():
    """Fail in the author's own words."""
    raise CommandError("the model is out of ideas")
