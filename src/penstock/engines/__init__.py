"""Models behind one small interface: ``engines.open("llamacpp:smollm2-135m")``.

A spec is ``ADAPTER:REST``; what REST means is the adapter's to say.  ``ADAPTER://HOST:PORT`` is a server at
``http://HOST:PORT``, and ``ADAPTER+https://HOST`` one at ``https://HOST``.  A spec without an adapter is one
for ``llamacpp``.  An adapter and its library are imported when it is first opened, never before.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from penstock.errors import CallError, ErrorCode

if TYPE_CHECKING:
    from penstock.engines.base import Engine

__all__ = ["ADAPTERS", "Adapter", "capacity", "open"]


class Adapter(NamedTuple):
    """Where an adapter's opening function is found, and what its specs look like."""

    target: str
    """``module:function``; the function takes the text behind the colon, or for a server its URL, and options
    by keyword."""
    example: str
    capacity: str = ""
    """``module:function`` that tells the capacity of an engine, where opening one loads a model."""


ADAPTERS: dict[str, Adapter] = {
    "llamacpp": Adapter(
        "penstock.engines.llamacpp:open_llamacpp",
        "llamacpp:smollm2-135m",
        "penstock.engines.llamacpp:llamacpp_capacity",
    ),
    "transformers": Adapter(
        "penstock.engines.transformers:open_transformers",
        "transformers:/models/SmolLM2-135M-Instruct",
        "penstock.engines.transformers:transformers_capacity",
    ),
    "openai": Adapter(
        "penstock.engines.openai:open_openai",
        "openai://127.0.0.1:8080",
        "penstock.engines.openai:openai_capacity",
    ),
    "sglang": Adapter(
        "penstock.engines.sglang:open_sglang",
        "sglang://127.0.0.1:30000",
        "penstock.engines.sglang:sglang_capacity",
    ),
    "anthropic": Adapter(
        "penstock.engines.anthropic:open_anthropic",
        "anthropic:claude-opus-4-8",
        "penstock.engines.anthropic:anthropic_capacity",
    ),
    "scripted": Adapter("penstock.engines.scripted:open_scripted", "scripted:tokens=256,delay_ms=20"),
}
_DEFAULT = "llamacpp"
_SCHEMES = (("",), ("http", "https"))


def open(spec: str, **options: Any) -> Engine:
    """Open an engine by name.

    Args:
        spec: ``llamacpp:smollm2-135m`` or just ``smollm2-135m``, ``llamacpp:/path/model.gguf``,
            ``llamacpp:owner/repo/file.gguf`` (from the local Hugging Face cache), ``scripted:tokens=256``,
            ``openai://127.0.0.1:8080`` (a server), ``openai:gpt-5-mini`` (a hosted model).
        options: What the adapter takes beyond that, such as ``slots=8``.

    Raises:
        CallError: An unknown adapter, a wrong option, a model that is not there or cannot be loaded.
    """
    adapter, rest = _split(spec)
    opening = cast("Callable[..., Engine]", _load(adapter.target))
    return opening(rest, **options)


def capacity(spec: str) -> int:
    """Return how many generations an engine runs at the same time, without loading its model.

    Raises:
        CallError: An unknown adapter, or a model that is not there.
    """
    adapter, rest = _split(spec)
    if adapter.capacity:
        tell = cast("Callable[[str], int]", _load(adapter.capacity))
        return tell(rest)
    engine = open(spec)
    engine.close()
    return engine.capacity


def _split(spec: str) -> tuple[Adapter, str]:
    name, colon, rest = spec.partition(":")
    server, plus, scheme = name.partition("+")
    if server in ADAPTERS and rest.startswith("//") and scheme in _SCHEMES[bool(plus)]:
        return ADAPTERS[server], f"{scheme or 'http'}:{rest}"
    if name not in ADAPTERS:
        if colon and not _is_path(spec):
            raise CallError(_unknown(spec, name), ErrorCode.INVALID_ARGUMENT)
        name, rest = _DEFAULT, spec
    return ADAPTERS[name], rest


def _load(target: str) -> object:
    module, _, function = target.partition(":")
    return cast(object, getattr(import_module(module), function))


def _is_path(spec: str) -> bool:
    # A drive letter looks like an adapter's name.
    return spec.endswith(".gguf") or spec[1:3] in (":\\", ":/")


def _unknown(spec: str, name: str) -> str:
    known = "; ".join(f"{key} (such as {adapter.example})" for key, adapter in ADAPTERS.items())
    return f"no engine adapter {name!r} for {spec!r}; known are: {known}"
