"""Packages that an extra brings: imported where they are used, and named when they are missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from penstock.annotate.errors import ConfigError

_EXTRAS = {"PIL": "images", "numpy": "images", "shapely": "auto-annotation", "av": "auto-annotation"}


def needed(module: str, what: str) -> Any:
    """Import a module that ``what``, the beginning of a sentence such as "polygons", needs.

    Raises:
        ConfigError: It is not there; the text names the extra that brings it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as missing:
        extra = _EXTRAS[module.partition(".")[0]]
        raise ConfigError(
            f"{what} cannot be had without the package {missing.name}; install it with: "
            f"pip install 'penstock[{extra}]'"
        ) from missing
