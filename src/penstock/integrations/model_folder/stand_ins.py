"""The import names of Clarifai's SDK that models use; ours only where that package is not installed."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from penstock.integrations.names import NameFinder

_HOME = "integrations.model_folder"
_TYPES = (
    "Audio",
    "Concept",
    "Frame",
    "Image",
    "JSON",
    "MessageData",
    "NamedFields",
    "Region",
    "Text",
    "Video",
)
_TYPE_NAMES = {name: f"{_HOME}.data_types:{name}" for name in _TYPES}
DATA_TYPES = "clarifai.runners.utils.data_types"
DATA_UTILS = "clarifai.runners.utils.data_utils"
MODEL_CLASS = "clarifai.runners.models.model_class"

MODULES: Mapping[str, Mapping[str, str]] = {
    "clarifai": {},
    "clarifai.runners": {},
    "clarifai.runners.models": {},
    MODEL_CLASS: {"ModelClass": f"{_HOME}.model_class:ModelClass"},
    "clarifai.runners.models.openai_class": {"OpenAIModelClass": f"{_HOME}.model_class:OpenAIModelClass"},
    "clarifai.runners.utils": {},
    DATA_TYPES: _TYPE_NAMES,
    f"{DATA_TYPES}.data_types": _TYPE_NAMES,
    DATA_UTILS: {"Param": f"{_HOME}.data_types:Param"},
    "clarifai.utils": {},
    "clarifai.utils.logging": {"logger": f"{_HOME}.model_class:logger"},
}

_finder = NameFinder(MODULES)


def install() -> None:
    """Make the names importable, behind everything that is installed; called when a model is imported."""
    if _finder not in sys.meta_path:
        sys.meta_path.append(_finder)
