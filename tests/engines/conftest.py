"""The real model, loaded once; after the first pull these tests need no network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.engines.llamacpp import LlamaEngine
from penstock.engines.store import ModelStore


@pytest.fixture(scope="session")
def model_path() -> Path:
    return ModelStore().pull("smollm2-135m")


@pytest.fixture(scope="session")
def llama(model_path: Path) -> Iterator[LlamaEngine]:
    engine = LlamaEngine(model_path, "smollm2-135m")
    yield engine
    engine.close()
