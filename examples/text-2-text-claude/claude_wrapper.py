"""What the guide leaves out: a wrapper around Anthropic's own SDK (`pip install 'penstock[anthropic]'`)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from anthropic import Anthropic, AsyncAnthropic, BadRequestError

# The API's later version takes no temperature at all; in this one it is up to the model.
TAKES_TEMPERATURE = {"anthropic-version": "2023-06-01"}


class ClaudeWrapper:
    """Answers prompts with one of Anthropic's models.

    Args:
        model_name: Which one.
        api_key: By default that of ``ANTHROPIC_API_KEY``.
    """

    def __init__(self, model_name: str, api_key: str | None = None) -> None:
        self._model_name = model_name
        self._takes_temperature = True
        self._blocking = Anthropic(api_key=api_key)
        self._client = AsyncAnthropic(api_key=api_key)

    async def predict_streaming(
        self, prompt: str, system_prompt: str, max_tokens: int, temperature: float
    ) -> AsyncGenerator[str, None]:
        """Answer piece by piece.  Closing this, as a cancel does, closes the connection: Claude stops."""
        asked = self._request(prompt, system_prompt, max_tokens)
        try:
            stream = await self._client.messages.create(stream=True, **asked, **self._sampling(temperature))
        except BadRequestError as error:
            self._refused(error)
            stream = await self._client.messages.create(stream=True, **asked)
        ended = False
        async with stream:
            async for event in stream:
                if event.type == "content_block_delta" and event.delta.type == "text_delta":
                    yield event.delta.text
                ended = ended or event.type == "message_stop"
        if not ended:
            raise RuntimeError("Anthropic's stream broke off; the answer may be incomplete")

    def predict(
        self, prompt: str, system_prompt: str, max_tokens: int, temperature: float, streaming: bool = False
    ) -> str:
        """Answer at once."""
        asked = self._request(prompt, system_prompt, max_tokens)
        try:
            message = self._blocking.messages.create(**asked, **self._sampling(temperature))
        except BadRequestError as error:
            self._refused(error)
            message = self._blocking.messages.create(**asked)
        return "".join(block.text for block in message.content if block.type == "text")

    async def aclose(self) -> None:
        """Close what is connected; called after the last call that uses this wrapper."""
        self._blocking.close()
        await self._client.close()

    def _request(self, prompt: str, system_prompt: str, max_tokens: int) -> dict[str, Any]:
        messages = [{"role": "user", "content": prompt}]
        return {
            "model": self._model_name,
            "max_tokens": max_tokens,
            "system": system_prompt,
            "messages": messages,
        }

    def _sampling(self, temperature: float) -> dict[str, Any]:
        if not self._takes_temperature:
            return {}
        return {"extra_body": {"temperature": temperature}, "extra_headers": TAKES_TEMPERATURE}

    def _refused(self, error: BadRequestError) -> None:
        """Remember that the model takes no temperature; raise what else it refused."""
        if not self._takes_temperature or "temperature" not in error.message:
            raise error
        self._takes_temperature = False
