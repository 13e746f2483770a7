"""How the methods of Clarifai's models are called as commands."""

from __future__ import annotations

import hashlib
import re

from penstock.protocol.runners import CommandName

METHOD_KEY = "_method_name"
"""Where ``Data.metadata`` names the method that is meant."""
SIGNATURES = "_GET_SIGNATURES"
"""The method that every model has, and which says what its methods are."""

POST = "PostModelOutputs"
GENERATE = "GenerateModelOutputs"
STREAM = "StreamModelOutputs"
RAW = (POST, GENERATE, STREAM)
"""The RPCs that are commands of a model as they are, besides its methods (``raw``)."""
ANNOTATE = "AutoAnnotate"
"""The command of a model by which its runner goes through media by itself."""

OPENAI_METHODS = ("openai_transport", "openai_stream_transport")
"""Methods that take requests of OpenAI's API as text, and give its answers, whole or in pieces."""

CONTROL_PREFIX = "control-"
"""What a runner's id begins with in the hello of its control stream."""

RUNNING = "task runner item ids: "
"""What the hello of a runner's first stream names its tasks of annotation behind, in its status."""
NOTICE, DETAILS = "runner_notice", "details"
"""In the metadata of an annotation that is none, but says how a task of annotation goes: what, and why."""
ACTIVE, COMPLETED, FAILED = "task-active", "task-completed", "task-failed"

_PATTERN = re.compile(next(meta.pattern for meta in CommandName.__metadata__))  # type: ignore[attr-defined]
_LENGTH = 64
_DIGITS = 8
_ALIEN = re.compile(r"[^A-Za-z0-9_-]")


def command_name(model_id: str, method: str) -> str:
    """Return the command of a model's method: ``toy.predict``.

    Ids that may not stand in the name of a command, or are too long for it, are rewritten, and the name has
    part of their hash in it, so that no two methods share one.
    """
    name = f"{model_id}.{method}"
    if _PATTERN.match(name):
        return name
    digest = hashlib.sha256(f"{model_id}\0{method}".encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
    tail = f"-{digest}.{_plain(method)[: _LENGTH // 2]}"
    head = _plain(model_id)
    if not re.match("[A-Za-z_]", head):
        head = f"_{head}"
    return head[: _LENGTH - len(tail)] + tail


def _plain(text: str) -> str:
    return _ALIEN.sub("_", text)
