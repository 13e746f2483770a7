"""A project: tells a story with the embedded model.  Serve it with `penstock run examples/storyteller`."""

from __future__ import annotations

from penstock import Runtime, engines

rt = Runtime("manifest.yml")


@rt.command("initialize")
def initialize(model: str = "smollm2-135m"):
    """Open the model; what is returned becomes state."""
    return {"engine": engines.open(model)}


@rt.streaming_command("predict")
async def predict(prompt: str, max_tokens: int = 256, engine=None):
    """Answer a prompt piece by piece."""
    text = ""
    async for piece in engine.stream_text(prompt, max_tokens=max_tokens):
        text += piece
        yield {"text": text, "chunk": piece, "finished": False}
    yield {"text": text, "chunk": "", "finished": True}
