"""Which model a runner serves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class ServedModel:
    """What a runner runs; ids are empty where they are not known."""

    model_id: str
    user_id: str = ""
    app_id: str = ""
    version_id: str = ""
    deployment_id: str = ""

    def labels(self) -> Mapping[str, str]:
        """Return it as labels of a runner."""
        named = {
            "clarifai_model": self.model_id,
            "clarifai_app": self.app_id,
            "clarifai_version": self.version_id,
            "clarifai_deployment": self.deployment_id,
        }
        return {name: value for name, value in named.items() if value}


class Bindings(Protocol):
    """Knows which runner was made for which model."""

    def model_of(self, user_id: str, runner_id: str) -> ServedModel | None:
        """Return the model of a runner that was announced; None if none was."""
        ...


class NoBindings:
    """No runner was announced: each serves the model of its own name."""

    def model_of(self, user_id: str, runner_id: str) -> ServedModel | None:
        """See ``Bindings.model_of``."""
        return None
