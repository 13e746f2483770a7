"""A Clarifai model folder with `penstock run`, `inspect` and `doctor`."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from cli.processes import PATIENCE_S, Penstock, Serve

MODEL = '''
import os
from typing import Iterator

from clarifai.runners.models.model_class import ModelClass
from clarifai.runners.utils.data_types import Text


class Repeater(ModelClass):
    def load_model(self):
        self.mark = "!"

    @ModelClass.method
    def predict(self, text: Text, n: int = 2) -> Text:
        """Say it again."""
        return Text(text.text * n + self.mark)

    @ModelClass.method
    def generate(self, text: str, n: int = 2) -> Iterator[str]:
        for _ in range(n):
            yield text

    @ModelClass.method
    def stream(self, texts: Iterator[str]) -> Iterator[str]:
        for text in texts:
            yield text + self.mark

    @ModelClass.method
    def process(self) -> int:
        return os.getpid()
'''


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text("model:\n  id: repeater\nnum_threads: 2\n")
    (tmp_path / "requirements.txt").write_text("clarifai\npydantic>=2\n")
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "model.py").write_text(MODEL)
    return tmp_path


def test_inspect_and_doctor_know_it(penstock: Penstock, model: Path) -> None:
    shown = penstock("inspect", model)
    assert shown.returncode == 0, shown.stderr
    assert (
        "predict(text: string | Text, n: integer = 2) answers  (default)\n    Say it again." in shown.stdout
    )
    assert "stream(texts: array = null) streams" in shown.stdout
    looked = penstock("doctor", model).stdout
    assert "it can be imported" in looked
    assert "ok   requires pydantic>=2" in looked
    assert "BAD  requires" not in looked


@pytest.mark.parametrize("flags", [(), ("--workers", 1), ("--no-compat",)])
def test_it_is_served(serve: Serve, model: Path, flags: tuple[object, ...]) -> None:
    if "--workers" in flags:  # a stream of input reaches no other process
        (model / "1" / "model.py").write_text(MODEL.replace("texts: Iterator[str]", "texts: list[str]"))
    server = serve(model, *flags)

    def execute(command: str, **given: object) -> httpx.Response:
        body = {"command": command, "input": given, "is_stream": command in ("generate", "stream")}
        return httpx.post(f"{server.url}/v2/execute", json=body, timeout=PATIENCE_S)

    assert httpx.get(f"{server.url}/health").json()["name"] == "repeater"
    assert execute("predict", text="a").json()["data"] == "aa!"
    assert execute("predict", text={"text": "a"}, n=1).json()["data"] == "a!"
    assert execute("generate", text="a").text.count('"streaming"') == 2
    assert '"data":"b!"' in execute("stream", texts=["a", "b"]).text
    assert execute("predict").status_code == 400


def test_a_mistake_is_shown_where_it_stands(penstock: Penstock, model: Path) -> None:
    (model / "1" / "model.py").write_text(MODEL.replace(") -> int:", "):"))
    failed = penstock("run", model, "--port", 0)
    assert failed.returncode == 1
    assert f"{model}/1/model.py:28: method 'process' does not say what it returns" in failed.stderr
