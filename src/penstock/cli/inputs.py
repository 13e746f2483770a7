"""Inputs of a call as they are typed: ``k=text``, ``k:=json``, both out of files, or all in one file."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer

STDIN = "-"
FORMS = "name=text, name:=json, name=@file, name:=@file, @file"
_INPUT = re.compile(r"(?P<name>\w+)(?P<sign>:=@|:=|=@|=)(?P<value>.*)\Z", re.DOTALL)


def read_inputs(words: Iterable[str]) -> dict[str, Any]:
    """Return the input of a call.

    Args:
        words: ``k=text``, ``k:=json``, ``k=@file`` (one that is not UTF-8 is sent as bytes), ``k:=@file`` of
            JSON, or ``@file``: a JSON object of inputs, of which those count that no other word names.  The
            file ``-`` is standard input.

    Raises:
        typer.BadParameter: One of them is not of these forms, or given twice, or its file cannot be read.
    """
    words = list(words)
    if sum(word.endswith(f"@{STDIN}") for word in words) > 1:
        raise typer.BadParameter("what comes in can be read once: @- is given twice")
    inputs: dict[str, Any] = {}
    for word in words:
        if word.startswith("@"):
            _add(inputs, _all_of(word[1:]))
    named: dict[str, Any] = {}
    for word in words:
        if not word.startswith("@"):
            _add(named, _one_of(word))
    return inputs | named


def _add(inputs: dict[str, Any], more: dict[str, Any]) -> None:
    twice = inputs.keys() & more.keys()
    if twice:
        raise typer.BadParameter(f"{min(twice)} is given twice")
    inputs.update(more)


def _all_of(file: str) -> dict[str, Any]:
    found = _json(_text(file), file)
    if not isinstance(found, dict):
        raise typer.BadParameter(f"{file} is no JSON object of inputs")
    return found


def _one_of(word: str) -> dict[str, Any]:
    match = _INPUT.match(word)
    if match is None:
        raise typer.BadParameter(f"{word!r} is none of {FORMS}")
    return {match["name"]: _value(match["sign"], match["value"])}


def _value(sign: str, text: str) -> Any:
    if sign == "=":
        return text
    if sign == "=@":
        return _content(text)
    if sign == ":=@":
        return _json(_text(text), text)
    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not JSON ({error}); for plain text use = alone") from error


def _json(text: str, file: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{file} is not JSON: {error}") from error


def _text(file: str) -> str:
    content = _content(file)
    if isinstance(content, bytes):
        raise typer.BadParameter(f"{file} is not UTF-8, and so no JSON")
    return content


def _content(file: str) -> str | bytes:
    path = Path(file).expanduser()
    try:
        content = sys.stdin.buffer.read() if file == STDIN else path.read_bytes()
    except OSError as error:
        raise typer.BadParameter(
            f"{path} cannot be read: {error.strerror}; a text that begins with @ is written name:='\"@...\"'"
        ) from error
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content
