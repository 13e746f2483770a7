"""The engine ``transformers`` where its libraries are not: specs, options, and what a request makes of them.

What it does with a model is in ``tests/transformers_engine``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from penstock import engines
from penstock.engines import hugging_face, transformers, transformers_model
from penstock.engines.transformers_model import TransformersSettings
from penstock.engines.transformers_sampling import Choosing
from penstock.errors import CallError, ErrorCode
from penstock.protocol.events import EngineRequest, Sampling


def model(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def _no_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers_model, "find_spec", lambda name: None)


@pytest.mark.usefixtures("_no_libraries")
@pytest.mark.parametrize("use", [engines.open, engines.capacity])
def test_a_missing_library_names_the_extra(tmp_path: Path, use: Any) -> None:
    spec = f"transformers:{model(tmp_path)}"
    with pytest.raises(CallError, match=r"torch and transformers.*'penstock\[transformers\]'") as raised:
        use(spec)
    assert raised.value.code is ErrorCode.UNAVAILABLE
    assert not raised.value.retryable


def test_only_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers_model, "find_spec", lambda name: name == "transformers" or None)
    with pytest.raises(CallError, match="needs torch; install"):
        engines.open(f"transformers:{model(tmp_path)}")


@pytest.mark.usefixtures("_no_libraries")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"device": "gpu"}, "device"),
        ({"device": "cuda:x"}, "device"),
        ({"dtype": "int4"}, "dtype"),
        ({"slots": 0}, "slots"),
        ({"slots": "many"}, "slots"),
        ({"context_tokens": 1}, "context_tokens"),
        ({"threads": 2}, "options are device, dtype, slots, context_tokens"),
    ],
)
def test_a_wrong_option_is_named_before_anything_is_looked_for(options: dict[str, Any], said: str) -> None:
    with pytest.raises(CallError, match=said) as raised:
        engines.open("transformers:/no/such/folder", **options)
    assert raised.value.code is ErrorCode.INVALID_ARGUMENT


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1", "mps"])
def test_options_may_be_texts(device: str) -> None:
    settings = TransformersSettings.of({"device": device, "slots": "3", "context_tokens": "64"})
    assert (settings.device, settings.slots, settings.context_tokens) == (device, 3, 64)


@pytest.mark.parametrize("rest", ["/no/such/folder", "", "owner/repo", "a/b/c", "../x", "~/no-such"])
def test_what_is_not_there_is_not_looked_for_elsewhere(
    rest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CallError, match=r"nothing is downloaded here.* hf download owner/repo") as raised:
        engines.open(f"transformers:{rest}")
    assert raised.value.code is ErrorCode.NOT_FOUND


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CallError, match=r"no config\.json in it") as raised:
        engines.capacity(f"transformers:{tmp_path}")
    assert raised.value.code is ErrorCode.INVALID_ARGUMENT


def test_a_repository_is_found_in_the_local_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(transformers, "refuse_without_libraries", lambda: None)
    repository = tmp_path / "models--owner--repo"
    named = model(repository / "snapshots" / "aaa")
    model(repository / "snapshots" / "bbb")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("aaa")
    assert hugging_face.cached_folder("owner/repo") == named
    assert hugging_face.cached_folder("owner/other") is None
    assert engines.capacity("transformers:owner/repo") == 2


def asked(**fields: Any) -> EngineRequest:
    fields = {"prompt": "x"} | fields
    return EngineRequest(request_id="r", trace_id="t", model="m", **fields)


@pytest.mark.parametrize(
    ("fields", "code", "said"),
    [
        ({"tools": ({"type": "function"},)}, ErrorCode.NOT_IMPLEMENTED, "tools"),
        ({"response_format": {"type": "json_schema"}}, ErrorCode.NOT_IMPLEMENTED, "response_format"),
        ({"sampling": Sampling(repeat_penalty=-1)}, ErrorCode.INVALID_ARGUMENT, "repeat_penalty"),
        ({"sampling": Sampling(temperature=3)}, ErrorCode.INVALID_ARGUMENT, "temperature"),
        ({"prompt": ""}, ErrorCode.INVALID_ARGUMENT, "prompt: is empty"),
    ],
)
def test_what_cannot_be_done_is_refused(fields: dict[str, Any], code: ErrorCode, said: str) -> None:
    with pytest.raises(CallError, match=said) as raised:
        transformers._refuse(asked(**fields))
    assert raised.value.code is code
    transformers._refuse(asked(response_format={"type": "text"}))


def test_the_libraries_are_not_imported_with_the_module() -> None:
    code = "import sys, penstock.engines.transformers; print({'torch', 'transformers'} & set(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.strip() == "set()"


def folder_says(**values: Any) -> Choosing:
    none = dict.fromkeys(("do_sample", "temperature", "top_p", "top_k", "repetition_penalty"))
    return Choosing.of_folder(SimpleNamespace(**none | values))


@pytest.mark.parametrize(
    ("folder", "request_says", "due"),
    [
        ({}, {}, Choosing()),
        ({"temperature": 0.6, "top_k": 50}, {}, Choosing()),
        ({}, {"seed": 1}, Choosing(temperature=1, seed=1)),
        ({}, {"top_p": 0.5}, Choosing(temperature=1, top_p=0.5)),
        ({}, {"top_k": 5, "temperature": 0}, Choosing(top_k=5)),
        ({"do_sample": True}, {}, Choosing(temperature=1)),
        ({"do_sample": True, "temperature": 0.6, "top_k": 20}, {}, Choosing(temperature=0.6, top_k=20)),
        ({"do_sample": True, "top_k": 20}, {"temperature": 0.2, "top_k": 0}, Choosing(temperature=0.2)),
        ({"repetition_penalty": 1.1}, {}, Choosing(repeat_penalty=1.1)),
        ({"repetition_penalty": 1.1}, {"repeat_penalty": 1.0}, Choosing()),
        ({}, {"presence_penalty": 0.5}, Choosing(presence_penalty=0.5)),
    ],
)
def test_the_folder_chooses_unless_the_request_does(
    folder: dict[str, Any], request_says: dict[str, Any], due: Choosing
) -> None:
    assert folder_says(**folder).with_request(Sampling(**request_says)) == due
