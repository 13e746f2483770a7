"""What is seen on the pictures of the playground: a model that has learnt one story by heart."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from pydantic import Field

from penstock import Runtime

rt = Runtime("manifest.yml")

STORY = (
    "Once upon a time a fox came to a river that was too wide to jump and too cold to swim. On the other "
    "bank stood a heron, who had seen many foxes come and many go home again.\n\n"
    '"How do you cross?" asked the fox.\n\n'
    '"I do not cross," said the heron. "I lift the gate of the penstock, the water runs down to the mill, '
    'and for a while the river is a path." And she put one foot on the lever, and the water sang away '
    "through the pipe, and the fox walked over with dry paws. He has told everybody since that rivers are a "
    "matter of knowing whom to ask."
)
ANSWERS = (
    "It is the gate that lets water into a mill, as much as is wanted and no more.",
    "Yes: close it, and nothing flows. What has been let through is yours to keep.",
)


@rt.streaming_command("predict")
async def predict(
    prompt: str,
    max_tokens: Annotated[int, Field(ge=1, description="How long the answer may become")] = 256,
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7,
):
    """Answer a prompt piece by piece."""
    await asyncio.sleep(0.12)
    text = ""
    for number, word in enumerate(STORY.split(" ")[:max_tokens]):
        await asyncio.sleep(0.012 + 0.006 * (number % 7 == 0) + 0.02 * (number % 31 == 30))
        text += f"{word} "
        yield {"text": text, "chunk": f"{word} ", "finished": False}


@rt.streaming_command("chat", openai="chat")
async def chat(messages: list[dict[str, Any]], max_tokens: int = 256):
    """Continue a conversation."""
    turn = sum(message["role"] == "user" for message in messages) - 1
    for number, word in enumerate(ANSWERS[turn % len(ANSWERS)].split(" ")[:max_tokens]):
        await asyncio.sleep(0.02 + 0.01 * (number % 4 == 0))
        yield {"chunk": f"{word} "}
