"""Projects on disk: a folder with a manifest, or one Python file."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from penstock.errors import AuthoringError
from penstock.runtime.abort import AbortCallbacks, owned_by
from penstock.runtime.manifest import Manifest, load_manifest
from penstock.runtime.manifest_lines import Fault
from penstock.runtime.runtime import Runtime, project_folder, runtimes_made

MANIFEST = "manifest.yml"


@dataclass(frozen=True)
class ProjectSource:
    """Where another process finds a project.

    Attributes:
        loader: "module:function"; called with the owner of abort callbacks and the arguments, it returns the
            project's Runtime.
        arguments: Text only, by name.
    """

    loader: str
    arguments: Mapping[str, str]


def read_project(path: Path) -> tuple[Manifest, Path | None]:
    """Return a project's manifest and the file to import, if it names one.

    Args:
        path: A folder with manifest.yml, or a Python file.

    Raises:
        AuthoringError: There is no project there, or its manifest has mistakes.
    """
    if path.is_dir():
        if not (path / MANIFEST).is_file():
            raise AuthoringError(f"{path} has no {MANIFEST}; name a project folder or a .py file")
        manifest = load_manifest(path / MANIFEST)
        return manifest, _entrypoint(path, manifest)
    if path.is_file() and path.suffix == ".py":
        return Manifest(name=project_name(path.stem)), path
    raise AuthoringError(f"{path} is neither a folder with {MANIFEST} nor a .py file")


def import_project(entrypoint: Path, owner: AbortCallbacks) -> Runtime:
    """Import an entrypoint and return the one Runtime made meanwhile.

    Abort callbacks registered on the way belong to ``owner``.

    Raises:
        AuthoringError: No runtime was made, or several.
        Exception: Whatever the author's file raises.
    """
    made: list[Runtime] = []
    folder_token, made_token = project_folder.set(entrypoint.parent), runtimes_made.set(made)
    try:
        with owned_by(owner):
            import_file(entrypoint)
    finally:
        project_folder.reset(folder_token)
        runtimes_made.reset(made_token)
    if len(made) != 1:
        found = "makes no Runtime" if not made else f"makes {len(made)} Runtimes"
        raise AuthoringError(f"{entrypoint} {found}; it needs exactly one: `rt = Runtime('{MANIFEST}')`")
    return made[0]


def _entrypoint(folder: Path, manifest: Manifest) -> Path | None:
    if manifest.entrypoint is None:
        if manifest.engine is None:
            raise AuthoringError(f"{folder / MANIFEST} names neither an entrypoint nor an engine; add one")
        return None
    path = (folder / manifest.entrypoint).resolve()
    if not path.is_relative_to(folder.resolve()):
        what = f"{manifest.entrypoint} lies outside the project; move it in"
        raise manifest.refusal([Fault(("entrypoint",), what)])
    if not path.is_file():
        what = f"{manifest.entrypoint} does not exist; create it, or name the file that makes the Runtime"
        raise manifest.refusal([Fault(("entrypoint",), what)])
    return path


def import_file(path: Path) -> ModuleType:
    """Import a file of a project and return it as a module.

    Raises:
        AuthoringError: It is no file of Python.
        Exception: Whatever it raises.
    """
    # The project's own modules are importable from its entrypoint, as when Python runs the file.
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    name = f"penstock_project_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise AuthoringError(f"{path} cannot be imported as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def project_name(stem: str) -> str:
    """Return ``stem`` as the name of a project."""
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in stem.lower()) or "project"
