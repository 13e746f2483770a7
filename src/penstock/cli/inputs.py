"""Inputs of a call as they are typed: ``k=text``, ``k:=json``, ``k=@file``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer

_INPUT = re.compile(r"(?P<name>\w+)(?P<sign>:=|=@|=)(?P<value>.*)\Z", re.DOTALL)


def read_inputs(words: Iterable[str]) -> dict[str, Any]:
    """Return the input of a call.

    Args:
        words: ``k=text``, ``k:=json`` or ``k=@file``; a file that is not UTF-8 is sent as bytes.

    Raises:
        typer.BadParameter: One of them is not of these forms, or given twice, or its file cannot be read.
    """
    inputs: dict[str, Any] = {}
    for word in words:
        match = _INPUT.match(word)
        if match is None:
            raise typer.BadParameter(f"{word!r} is none of name=text, name:=json, name=@file")
        if match["name"] in inputs:
            raise typer.BadParameter(f"{match['name']} is given twice")
        inputs[match["name"]] = _value(match["sign"], match["value"])
    return inputs


def _value(sign: str, text: str) -> Any:
    if sign == "=":
        return text
    if sign == "=@":
        return _content(Path(text).expanduser())
    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not JSON ({error}); for plain text use = alone") from error


def _content(path: Path) -> str | bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise typer.BadParameter(
            f"{path} cannot be read: {error.strerror}; a text that begins with @ is written name:='\"@...\"'"
        ) from error
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content
