"""Finding a model folder, reading its ``config.yaml``, and importing its model as a ``Runtime``."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from penstock.errors import AuthoringError, ManifestError
from penstock.integrations.model_folder import stand_ins
from penstock.integrations.model_folder.conversion import Conversion
from penstock.integrations.model_folder.input_stream import StreamingThreads
from penstock.integrations.model_folder.methods import STATE, add_command, marked, read_method
from penstock.integrations.model_folder.model_class import log_tokens
from penstock.runtime.abort import AbortCallbacks, owned_by
from penstock.runtime.manifest import Manifest
from penstock.runtime.manifest_lines import Document, read_document
from penstock.runtime.manifest_parts import Startup
from penstock.runtime.parameters import State
from penstock.runtime.project import MANIFEST, import_file, project_name
from penstock.runtime.runtime import Runtime
from penstock.runtime.state import INITIALIZE

CONFIG = "config.yaml"
ADMISSION = "check_admission"
THREADS = "CLARIFAI_NUM_THREADS"
DEFAULT_THREADS = 16
_PLACES = ("1/model.py", "model.py")
_PROVIDED = frozenset(("clarifai", "clarifai-protocol"))  # by us, where they are not installed


def is_model_folder(path: Path) -> bool:
    """Whether a folder holds a Clarifai model; one with a manifest of ours is a project like any other."""
    return (path / CONFIG).is_file() and not (path / MANIFEST).exists() and _model_file(path) is not None


def read_model_folder(folder: Path) -> tuple[Manifest, Path]:
    """Return a model folder's settings as a manifest, and the file to import.

    Raises:
        AuthoringError: config.yaml has mistakes.
    """
    config = read_document(folder / CONFIG)
    about = _mapping(_mapping(config.value).get("model"))
    name, model_file = about.get("id"), _model_file(folder)
    assert model_file is not None
    manifest = Manifest(
        name=project_name(name if isinstance(name, str) else folder.resolve().name),
        description=str(about.get("description") or ""),
        startup=(Startup(command=INITIALIZE),),
        requires=_requirements(folder / "requirements.txt"),
    )
    num_threads(config)
    return manifest, model_file


def import_model(folder: Path, manifest: Manifest, owner: AbortCallbacks) -> Runtime:
    """Import a folder's model and return a runtime with its methods as commands.

    Abort callbacks registered on the way belong to ``owner``; those that the model registers when it is made
    or loaded belong to it.

    Raises:
        AuthoringError: There is no model, or a method cannot be served.
        Exception: Whatever the author's file raises.
    """
    stand_ins.install()
    model_file = _model_file(folder)
    assert model_file is not None
    with owned_by(owner):
        module = import_file(model_file)
    model_class = _model_class(vars(module), model_file)
    runtime = Runtime(manifest)
    _add_initialize(runtime, model_class)
    threads = num_threads(read_document(folder / CONFIG))
    _add_methods(runtime, model_class, model_file, threads)
    _add_admission(runtime, model_class, threads)
    if manifest.default_command not in runtime.commands:
        first = next(name for name in runtime.commands if name != INITIALIZE)
        runtime.manifest = manifest.model_copy(update={"default_command": first})
    return runtime


def num_threads(config: Document) -> int:
    """Return how many calls of a method run at once: the config's, the environment's, or 16.

    Raises:
        AuthoringError: It is no number above 0.
    """
    value, where = _mapping(config.value).get("num_threads"), config.where(("num_threads",))
    if value is None:
        text = os.environ.get(THREADS, "") or str(DEFAULT_THREADS)
        value, where = (
            int(text) if text.isascii() and text.isdigit() else text,
            f"the environment ({THREADS})",
        )
    if type(value) is not int or value < 1:
        raise ManifestError(f"{where}: num_threads: should be a number from 1 on (not {value!r})")
    return value


def _add_initialize(runtime: Runtime, model_class: type) -> None:
    def initialize() -> dict[str, Any]:
        """Make the model and load it."""
        model = model_class()
        model.set_output_context = log_tokens  # nobody else empties what the SDK's own keeps
        model.load_model()
        return {STATE: model}

    runtime.command(INITIALIZE)(initialize)


def _add_admission(runtime: Runtime, model_class: type, threads: int) -> None:
    if not callable(getattr(model_class, ADMISSION, None)) or ADMISSION in runtime.commands:
        return

    def check_admission(*, model_instance: State[Any]) -> bool:
        """Whether the model wants more work now."""
        model: Any = model_instance
        return bool(model.check_admission())

    runtime.command(ADMISSION, concurrency=threads)(check_admission)


def _add_methods(runtime: Runtime, model_class: type, model_file: Path, concurrency: int) -> None:
    methods = marked(model_class)
    data_types, data_utils = map(import_module, (stand_ins.DATA_TYPES, stand_ins.DATA_UTILS))
    conversion = Conversion(data_types, data_utils.Param)
    if not methods:
        raise AuthoringError(
            f"{model_file}: {model_class.__name__} has no method that callers may call; put "
            "@ModelClass.method above them (PostModelOutputs, which takes messages, is not served)"
        )
    threads = StreamingThreads()
    runtime.on_close(threads.close)
    for name, function in methods.items():
        where = f"{model_file}:{function.__code__.co_firstlineno}: method {name!r}"
        add_command(runtime, read_method(function, conversion, where), conversion, threads, concurrency)


def _model_class(names: Mapping[str, Any], model_file: Path) -> type:
    base: type = import_module(stand_ins.MODEL_CLASS).ModelClass
    found = {
        value
        for value in names.values()
        if inspect.isclass(value) and issubclass(value, base) and not value.__module__.startswith("clarifai.")
    }
    found -= {value for value in found if value.__module__.startswith("penstock.")}
    leaves = [value for value in found if not any(value in other.__mro__[1:] for other in found)]
    if len(leaves) != 1:
        count = "no class" if not leaves else f"{len(leaves)} classes"
        raise AuthoringError(f"{model_file} has {count} derived from ModelClass; it needs exactly one")
    return leaves[0]


def _model_file(folder: Path) -> Path | None:
    return next((folder / place for place in _PLACES if (folder / place).is_file()), None)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _requirements(path: Path) -> tuple[str, ...]:
    """Return the requirements that ``penstock doctor`` can check: pip's options and links are not among
    them."""
    if not path.is_file():
        return ()
    found: list[str] = []
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        text = line.split(" #")[0].strip()
        try:
            name = Requirement(text).name
        except InvalidRequirement:
            continue
        if name.lower().replace("_", "-") not in _PROVIDED:
            found.append(text)
    return tuple(found)
