"""What a call's prompt is to those who have no tokenizer: one text, and the chain of its blocks.

What stands before something in a conversation stands before it in the text, so two prompts share a prefix of
their texts where a model's cache can share one.  How an answer is to be sampled is not part of it.  A gateway
and its runners make the same text of the same input, here, and only names of its blocks travel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import msgspec

from penstock.kv.chain import TOKEN_BYTES, chain_hashes, chain_root
from penstock.protocol.kv import KVDType, KVLayout

BLOCK_BYTES = 128
"""Of the text; about 30 tokens."""
MAX_TEXT = 32 * 1024
"""Bytes; what two prompts have in common behind them is not looked at."""
MAX_INPUT = 256 * 1024
"""Bytes of an input that is looked at: reading a larger one would hold up other calls."""

# They stand in no text that people write; one that has them is at worst taken for another.
_RAW, _TURN, _SAID, _REST, _OVER = b"\x01", b"\x02", b"\x1f", b"\x1e", b"\x03"
_FIELDS = frozenset({"prompt", "messages", "request"})


class _Input(msgspec.Struct):
    prompt: Any = None
    system_prompt: Any = None
    messages: Any = None
    tools: Any = None
    request: Any = None
    cache_salt: Any = None


@dataclass(frozen=True)
class Prompt:
    """A prompt's text.

    Attributes:
        text: All that the model reads, in its order.
        salt: Keeps it apart from those of another salt.
        adapter: What the model is adapted by.
        raw: It is continued as it stands; else it is a conversation.
    """

    text: bytes
    salt: str = ""
    adapter: str = ""
    raw: bool = False

    def chain(self, answer: str | None = None) -> list[bytes]:
        """Return the names of the text's full blocks, and of those of what was answered."""
        text = self.text
        if answer is not None:
            text += answer.encode(errors="replace") if self.raw else _turn("assistant", answer)
        root = chain_root(self.salt, self.adapter, KVDType.FP16, KVLayout.BSHD, BLOCK_BYTES)
        return chain_hashes(root, text[:MAX_TEXT], BLOCK_BYTES // TOKEN_BYTES)


def takes_prompt(schema: Mapping[str, Any]) -> bool:
    """Whether the input of a command, by its JSON Schema, has a prompt."""
    properties = schema.get("properties")
    return isinstance(properties, Mapping) and not _FIELDS.isdisjoint(properties)


def read_prompt(text: bytes) -> Prompt | None:
    """Return the prompt of an input.

    It is ``prompt`` after ``system_prompt``, ``messages`` after ``tools``, or that of a typed ``request``.

    Args:
        text: The input, JSON.  ``cache_salt`` in it, or in a typed request's ``metadata``, keeps callers
            apart.

    Returns:
        None if there is none, or too much of it.
    """
    if len(text) > MAX_INPUT:
        return None
    try:
        given = _decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    salt = _text(given.cache_salt)
    if _is_conversation(given.messages):
        return conversation_prompt(given.messages, given.tools, salt)
    if isinstance(given.prompt, str) and given.prompt:
        user = {"role": "user", "content": given.prompt}
        system = {"role": "system", "content": given.system_prompt}
        return conversation_prompt([user] if given.system_prompt is None else [system, user], None, salt)
    return _typed(given.request, salt) if isinstance(given.request, dict) else None


def conversation_prompt(
    messages: Sequence[Mapping[str, Any]], tools: object = None, salt: str = ""
) -> Prompt:
    """Return the prompt that a conversation is; ``tools`` stand before it, as in the templates of models."""
    told = b"" if not tools else _REST + _json(tools)
    return Prompt(told + b"".join(_turns(messages)), salt)


def raw_prompt(text: str, salt: str = "", adapter: str = "") -> Prompt:
    """Return a prompt that is continued as it stands."""
    return Prompt(_RAW + text.encode(errors="replace"), salt, adapter, raw=True)


def _typed(request: dict[str, Any], salt: str) -> Prompt | None:
    prompt, metadata = request.get("prompt"), request.get("metadata")
    if not isinstance(prompt, str) or not prompt:
        return None
    own = _text(metadata.get("cache_salt")) if isinstance(metadata, dict) else ""
    return raw_prompt(prompt, own or salt, _text(request.get("model")))


def _turns(messages: Sequence[Mapping[str, Any]]) -> Iterator[bytes]:
    size = 0
    for message in messages:
        if size > MAX_TEXT:
            return
        rest = {
            name: value
            for name, value in message.items()
            if name not in ("role", "content") and value is not None
        }
        turn = _turn(_text(message.get("role")), message.get("content"), rest)
        size += len(turn)
        yield turn


def _turn(role: str, content: object, rest: Mapping[str, object] | None = None) -> bytes:
    said = content.encode(errors="replace") if isinstance(content, str) else _json(content)
    more = _REST + _json(rest) if rest else b""
    return b"".join((_TURN, role.encode(errors="replace"), _SAID, said, more, _OVER))


def _is_conversation(messages: object) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(messages, list) and bool(messages) and all(isinstance(each, dict) for each in messages)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


_decode = msgspec.json.Decoder(_Input).decode
_json = msgspec.json.Encoder(order="deterministic").encode
