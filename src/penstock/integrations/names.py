"""Import names of the three systems whose code runs here unchanged (WIRE.md section 7).

``import xumi…``, ``import clarifai_protocol`` and ``import sagellm_protocol`` find penstock, by a finder on
``sys.meta_path``: before everything else where penstock runs a project, behind everything else where a
program only asks for the names.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
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


class NameFinder(MetaPathFinder, Loader):
    """Finds the names above and loads them from penstock."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See ``importlib.abc.MetaPathFinder``."""
        if name not in _MODULES:
            return None
        return ModuleSpec(name, self, origin="penstock", is_package=True)

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave making the module to the import system."""

    def exec_module(self, module: ModuleType) -> None:
        """Fill ``module`` with penstock's own objects."""
        for name, home in _MODULES[module.__name__].items():
            source, _, attribute = home.partition(":")
            found = import_module(f"penstock.{source}")
            if name == "*":
                module.__getattr__ = found.__getattr__  # type: ignore[method-assign]
                module.__dict__["__all__"] = sorted(found.TYPES)
            else:
                setattr(module, name, getattr(found, attribute))


_finder = NameFinder()


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
            _log.warning(
                "%s is installed; penstock's own %s is used instead (--no-compat to change)", name, name
            )
        sys.meta_path.insert(0, _finder)
    else:
        sys.meta_path.append(_finder)


def _installed() -> list[str]:
    tops = (name for name in _MODULES if "." not in name)
    return [name for name in tops if name not in sys.modules and importlib.util.find_spec(name) is not None]
