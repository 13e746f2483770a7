"""manifest.yml: what a project is called, what it runs and how (WIRE.md section 4)."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from packaging.requirements import InvalidRequirement, Requirement
from pydantic import AfterValidator, BaseModel, Field, PrivateAttr, ValidationError

from penstock.errors import ManifestError
from penstock.runtime.manifest_lines import Document, Fault, Place, read_document
from penstock.runtime.manifest_parts import CommandSettings, Part, Startup, WorkflowId, WorkflowSpec
from penstock.runtime.nearest import nearest
from penstock.runtime.workflow import Workflow, plan_workflow

_log = logging.getLogger("penstock.manifest")


def _requirement(text: str) -> str:
    try:
        Requirement(text)
    except InvalidRequirement as error:
        raise ValueError("should be a requirement, such as torch>=2.4") from error
    return text


class Manifest(Part):
    """A project's manifest.  Keys this version does not know are allowed and warned about, as manifests of
    other systems carry more."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")] = "penstock"
    version: Annotated[str, Field(min_length=1)] = "0.0.0"
    description: str = ""
    entrypoint: str | None = None
    engine: str | None = None
    default_command: str = "predict"
    startup: tuple[Startup, ...] = ()
    state: tuple[str, ...] = ()
    commands: Mapping[str, CommandSettings] = {}
    workers: Annotated[int, Field(ge=0, le=1024)] = 0
    workflows: Mapping[WorkflowId, WorkflowSpec] = {}
    requires: tuple[Annotated[str, AfterValidator(_requirement)], ...] = ()

    _document: Document | None = PrivateAttr(None)

    def refusal(self, faults: Iterable[Fault]) -> ManifestError:
        """Return the error that names mistakes, with their lines if the manifest was read from a file."""
        return ManifestError("\n".join(_say(fault, self._document) for fault in faults))

    def warn(self, fault: Fault) -> None:
        """Log something that may be a mistake."""
        _log.warning("%s", _say(fault, self._document))

    def plans(self) -> Mapping[str, Workflow]:
        """Return the workflows, ready to run.

        Raises:
            ManifestError: References or schemas are wrong; all of them are named.
        """
        faults: list[Fault] = []
        plans = {name: plan_workflow(name, spec, faults) for name, spec in self.workflows.items()}
        if faults:
            raise self.refusal(faults)
        return plans


def load_manifest(path: Path) -> Manifest:
    """Read a manifest file.

    Raises:
        ManifestError: It cannot be read, is no YAML, or holds mistakes; all of them are named.
    """
    document = read_document(path)
    if not isinstance(document.value, dict):
        raise ManifestError(f"{path}: there is no mapping; a manifest needs at least `name: my-project`")
    if document.value.get("name") is None:
        raise ManifestError(f"{path}: `name` is missing; add a line such as `name: my-project`")
    _keep_text(document)
    manifest = _validated(document)
    manifest._document = document
    for place, known in _unknown(manifest, ()):
        manifest.warn(Fault(place, f"not used by this version; {nearest(str(place[-1]), known)}"))
    manifest.plans()
    return manifest


def _validated(document: Document) -> Manifest:
    try:
        return Manifest.model_validate(document.value)
    except ValidationError as error:
        faults = [_read_fault(dict(fault), document) for fault in error.errors(include_url=False)]
        raise ManifestError("\n".join(_say(fault, document) for fault in faults)) from error


# -- text that YAML takes for a number -----------------------------------------------------------------

_STEP = r"workflows/[^/]*/steps/\d+(/parallel/\d+)?"
_TEXTS = re.compile(
    rf"(name|version|description|entrypoint|engine|default_command|(startup|state|requires)/\d+"
    rf"|startup/\d+/command|workflows/[^/]*/description|{_STEP}/(id|command))\Z"
)


def _keep_text(document: Document) -> None:
    """Let ``version: 1.10`` be the text that is written there, wherever text is due."""
    for place, written in document.written.items():
        if _TEXTS.match("/".join(map(str, place))):
            holder: Any = document.value
            for part in place[:-1]:
                holder = holder[part]
            holder[place[-1]] = written


# -- mistakes ------------------------------------------------------------------------------------------


def _say(fault: Fault, document: Document | None) -> str:
    name = ".".join(map(str, fault.place))
    where = "manifest" if document is None else document.where(fault.place)
    return f"{where}: {name}: {fault.message}" if name else f"{where}: {fault.message}"


_PATTERNS = {
    "name": "small letters, digits and '-' only, such as my-project",
    "id": "1 to 64 letters, digits, '_' or '-', the first a letter or '_'",
    "workflows": "1 to 128 letters, digits, '_', '.' or '-', the first a letter, digit or '_'",
}

_KINDS = {
    "model_type": "should be a mapping",
    "dict_type": "should be a mapping",
    "tuple_type": "should be a list",
    "string_type": "should be text",
}


def _read_fault(fault: Mapping[str, Any], document: Document) -> Fault:
    """Read one of pydantic's errors."""
    place = document.resolve(fault["loc"])
    if fault["type"] == "missing":
        return Fault((*place, fault["loc"][-1]), "this is missing; add it")
    message: str = _KINDS.get(fault["type"], fault["msg"])
    if fault["type"] == "string_pattern_mismatch":
        key = next((part for part in reversed(place) if part in _PATTERNS), "name")
        message = f"should be {_PATTERNS[str(key)]}"
    message = message.removeprefix("Value error, ").removeprefix("Input ")
    return Fault(place, f"{message} (not {_show(fault['input'])})")


def _show(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    return repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:60]}…"


def _unknown(value: object, place: Place) -> Iterator[tuple[Place, Iterable[str]]]:
    """Yield the keys that no part knows, and those it does know."""
    if isinstance(value, BaseModel):
        for key in value.model_extra or ():
            yield (*place, key), type(value).model_fields
        for name in type(value).model_fields:
            yield from _unknown(getattr(value, name), (*place, name))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _unknown(item, (*place, key))
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _unknown(item, (*place, index))
