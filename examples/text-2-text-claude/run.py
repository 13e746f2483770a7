"""The model of the streaming mode guide, as the guide has it: `penstock run examples/text-2-text-claude`."""

from typing import Any, AsyncGenerator, Dict

from claude_wrapper import ClaudeWrapper
from xumi.runtime.runtime_v2 import XUMIRuntimeV2

spi = XUMIRuntimeV2("manifest.yml")


@spi.command("initialize")
def initialize(model_name: str = "claude-3-5-sonnet-20240620", api_key: str = None):
    claude = ClaudeWrapper(model_name=model_name, api_key=api_key)
    return {"model": claude}


@spi.streaming_command("predict")
async def predict(
    prompt: str,
    system_prompt: str = "You are a helpful AI assistant.",
    max_tokens: int = 1000,
    temperature: float = 0.7,
    streaming: bool = True,
    model: ClaudeWrapper = None,
) -> AsyncGenerator[Dict[str, Any], None]:
    if streaming:
        full_text = ""
        async for chunk in model.predict_streaming(prompt, system_prompt, max_tokens, temperature):
            full_text += chunk
            yield {"text": full_text, "chunk": chunk, "finished": False}
        yield {"text": full_text, "chunk": "", "finished": True}
    else:
        text = model.predict(prompt, system_prompt, max_tokens, temperature, streaming=False)
        yield {"text": text, "chunk": text, "finished": True}
