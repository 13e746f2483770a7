"""Annotations of images and video: what a command detects in frames, as records that can be resumed.

Names are loaded when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.annotate.annotating import Annotating, annotate
    from penstock.annotate.answers import AnswerFormat
    from penstock.annotate.concepts import Concept
    from penstock.annotate.media.messages import Limits
    from penstock.annotate.media.sampling import Sampling
    from penstock.annotate.picture import Picture
    from penstock.annotate.records import Frame, Region
    from penstock.annotate.refine import Refining
    from penstock.annotate.serving import annotate_command
    from penstock.annotate.settings import Model, Settings
    from penstock.annotate.tracking import Tracking

_HOMES = {
    "Annotating": "annotating",
    "AnswerFormat": "answers",
    "Concept": "concepts",
    "Frame": "records",
    "Limits": "media.messages",
    "Model": "settings",
    "Picture": "picture",
    "Refining": "refine",
    "Region": "records",
    "Sampling": "media.sampling",
    "Settings": "settings",
    "Tracking": "tracking",
    "annotate": "annotating",
    "annotate_command": "serving",
}

__all__ = [
    "Annotating",
    "AnswerFormat",
    "Concept",
    "Frame",
    "Limits",
    "Model",
    "Picture",
    "Refining",
    "Region",
    "Sampling",
    "Settings",
    "Tracking",
    "annotate",
    "annotate_command",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
