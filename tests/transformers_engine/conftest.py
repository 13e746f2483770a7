"""A tiny Llama, made once.

Not a part of ``make test``, as torch is large: ``make test-transformers`` runs these in an environment of
their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from penstock.engines.transformers import TransformersEngine
from transformers_engine.asking import Watched
from transformers_engine.making import save


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama."""
    return save(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny(folder: Path) -> Iterator[TransformersEngine]:
    """A tiny Llama, loaded."""
    engine = TransformersEngine(folder, "tiny")
    yield engine
    engine.close()


@pytest.fixture
def watched(tiny: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    watching = Watched(tiny, monkeypatch)
    yield watching
    watching.remove()
