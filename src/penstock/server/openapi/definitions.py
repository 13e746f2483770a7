"""Where the types that schemas define for themselves (``$defs``) stand in a document: as components of it.

Generators of code make a class of a component.  A type that several schemas define alike is one component.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from penstock.server.openapi.schemas import POINTER, Schema

_DEFS = "#/$defs/"
_NAME = re.compile(r"[A-Za-z0-9._-]+\Z")
_REFERENCE = re.compile(r'"#/\$defs/([^"/]+)')


class Definitions:
    """The types that schemas define.

    Args:
        schemas: By the names of their components.
    """

    def __init__(self, schemas: Mapping[str, Schema]) -> None:
        self._schemas = schemas
        self._texts = {
            (owner, name): json.dumps(schema, sort_keys=True, default=str)
            for owner, each in schemas.items()
            for name, schema in _defined(each).items()
        }
        self._variants: dict[str, set[str]] = defaultdict(set)
        for (_, name), text in self._texts.items():
            self._variants[name].add(text)
        self._places = {key: self._place(*key) for key in self._texts if _NAME.match(key[1])}

    def placed(self, owner: str) -> Any:
        """Return a schema as its component is: its references lead to where things stand."""
        schema = self._schemas[owner]
        left = {name: each for name, each in _defined(schema).items() if (owner, name) not in self._places}
        plain = {key: value for key, value in schema.items() if key != "$defs"}
        return self._led({**plain, "$defs": left} if left else plain, owner)

    def reference(self, owner: str) -> Schema:
        """Return a reference to a schema; to what it refers to, if that is all that it does."""
        placed = self.placed(owner)
        return placed if placed.keys() == {"$ref"} else {"$ref": POINTER + owner}

    def components(self) -> dict[str, Schema]:
        """Return the components of the types."""
        return {
            place: self._led(_defined(self._schemas[owner])[name], owner)
            for (owner, name), place in self._places.items()
        }

    def _place(self, owner: str, name: str) -> str:
        alike = all(len(self._variants[each]) == 1 for each in self._reached(owner, name))
        return f"type.{name}" if alike else f"{owner}.{name}"

    def _reached(self, owner: str, name: str) -> set[str]:
        """Return a type and all that it refers to."""
        found, ahead = {name}, [name]
        while ahead:
            for other in _REFERENCE.findall(self._texts.get((owner, ahead.pop()), "")):
                if other not in found:
                    found.add(other)
                    ahead.append(other)
        return found

    def _led(self, value: Any, owner: str, under: tuple[str, ...] = ()) -> Any:
        if isinstance(value, dict):
            return {key: self._led(item, owner, (*under, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._led(item, owner, under) for item in value]
        is_reference = under[-1:] == ("$ref",) or under[-3:-1] == ("discriminator", "mapping")
        if is_reference and isinstance(value, str) and (value == "#" or value.startswith("#/")):
            return self._target(value, owner)
        return value

    def _target(self, reference: str, owner: str) -> str:
        name, slash, rest = reference.removeprefix(_DEFS).partition("/")
        if reference.startswith(_DEFS) and (place := self._places.get((owner, name))) is not None:
            return f"{POINTER}{place}{slash}{rest}"
        return POINTER + owner + reference[1:]


def _defined(schema: Schema) -> Mapping[str, Any]:
    found = schema.get("$defs")
    return found if isinstance(found, dict) else {}
