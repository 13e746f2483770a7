"""Import names of the three systems whose code runs here unchanged (WIRE.md section 7).

``import xumi…``, ``import clarifai_protocol`` and ``import sagellm_protocol`` find penstock, by a finder on
``sys.meta_path``: before everything else where penstock runs a project, behind everything else where a
program only asks for the names.  Clarifai's SDK needs more of ``clarifai_protocol`` than a model does: where
that is installed it stays, and ours are put into it.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_log = logging.getLogger("penstock.compat")

# module: the names it has, each as "penstock module:attribute"; "*" is every public name of a module
_MODULES: Mapping[str, Mapping[str, str]] = {
    "xumi": {},
    "xumi.runtime": {},
    "xumi.runtime.runtime_v2": {"XUMIRuntimeV2": "runtime.runtime:Runtime"},
    "clarifai_protocol": {
        "get_item_id": "runtime.context:get_request_id",
        "get_request_id": "runtime.context:get_request_id",
        "register_abort_callback": "runtime.abort:register_abort_callback",
        "register_item_abort_callback": "runtime.abort:register_abort_callback",
        "shutdown_abort_executor": "runtime.abort:wait_for_aborts",
    },
    "sagellm_protocol": {"*": "protocol"},
}
_COMPLETED = frozenset(("clarifai_protocol",))  # by what is installed under that name


class NameFinder(MetaPathFinder, Loader):
    """Finds modules that stand for others', and loads them from penstock.

    Args:
        modules: The modules, and the names that each has: as the table above.
    """

    def __init__(self, modules: Mapping[str, Mapping[str, str]]) -> None:
        self._modules = modules

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See ``importlib.abc.MetaPathFinder``."""
        if name not in self._modules or not self._is_ours(name.partition(".")[0]):
            return None
        if name in _COMPLETED:
            theirs = PathFinder.find_spec(name)
            if theirs is not None and theirs.loader is not None:
                theirs.loader = _Completed(theirs.loader, self)
                return theirs
        return ModuleSpec(name, self, origin="penstock", is_package=True)

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave making the module to the import system."""

    def exec_module(self, module: ModuleType) -> None:
        """Fill ``module`` with penstock's own objects."""
        for name, home in self._modules[module.__name__].items():
            source, _, attribute = home.partition(":")
            found = import_module(f"penstock.{source}")
            if name == "*":
                module.__getattr__ = found.__getattr__  # type: ignore[method-assign]
                module.__dict__["__all__"] = sorted(found.TYPES)
            else:
                setattr(module, name, getattr(found, attribute))

    def _is_ours(self, top: str) -> bool:
        """Whether a package's parts are ours to give: nobody is to get half of one and half of another."""
        there = sys.modules.get(top)
        return there is None or getattr(there.__spec__, "loader", None) is self


class _Completed(Loader):
    """Loads a package that is installed, and puts ours into it.

    Args:
        theirs: Loads the package.
        ours: Loads our names.
    """

    def __init__(self, theirs: Loader, ours: NameFinder) -> None:
        self._theirs = theirs
        self._ours = ours

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """See ``importlib.abc.Loader``."""
        return self._theirs.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """See ``importlib.abc.Loader``."""
        try:
            self._theirs.exec_module(module)
        except ImportError as error:
            _log.warning("%s is installed, but cannot be imported: %s", module.__name__, error)
        self._ours.exec_module(module)


_finder = NameFinder(_MODULES)


def install(*, first: bool) -> None:
    """Make the names importable; further calls only ever move them to the front.

    Args:
        first: Ours are used even where such a package is installed (which is then logged).
    """
    if _finder in sys.meta_path:
        if not first or sys.meta_path[0] is _finder:
            return
        sys.meta_path.remove(_finder)
    if first:
        for name in _installed():
            what = "names are put into it" if name in _COMPLETED else f"own {name} is used instead"
            _log.warning("%s is installed; penstock's %s (--no-compat to change)", name, what)
        sys.meta_path.insert(0, _finder)
    else:
        sys.meta_path.append(_finder)


def _installed() -> list[str]:
    tops = (name for name in _MODULES if "." not in name)
    return [name for name in tops if name not in sys.modules and importlib.util.find_spec(name) is not None]
