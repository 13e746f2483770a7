"""manifest.yml: what a project is called, what it runs (WIRE.md section 4, the part served so far)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from penstock.errors import ManifestError

_log = logging.getLogger("penstock.manifest")


class Startup(BaseModel):
    """A command run before the server is ready; written as its name, or with an input."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: str
    input: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: object) -> object:
        return {"command": value} if isinstance(value, str) else value


class Manifest(BaseModel):
    """A project's manifest.  Keys this version does not know are allowed and warned about, as manifests of
    other systems carry more."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")] = "penstock"
    version: str = "0.0.0"
    description: str = ""
    entrypoint: str | None = None
    engine: str | None = None
    default_command: str = "predict"
    startup: tuple[Startup, ...] = ()
    state: tuple[str, ...] = ()


def load_manifest(path: Path) -> Manifest:
    """Read a manifest file.

    Raises:
        ManifestError: It cannot be read, is no YAML, or holds mistakes; all of them are named.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ManifestError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path} is not YAML: {error}") from error
    if not isinstance(data, dict):
        raise ManifestError(f"{path} holds no mapping; it needs at least `name: my-project`")
    return _checked(data, path)


def _checked(data: dict[str, Any], path: Path) -> Manifest:
    if "name" not in data:
        raise ManifestError(f"{path}: `name` is missing; add a line such as `name: my-project`")
    for key in data.keys() - Manifest.model_fields.keys():
        _log.warning("%s: %r is not used by this version", path, key)
    try:
        return Manifest.model_validate(data)
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise ManifestError(f"{path}: {'; '.join(faults)}") from error
