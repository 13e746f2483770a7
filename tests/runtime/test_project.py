"""Projects on disk: what is loaded, and what an author is told when it cannot be."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.errors import AuthoringError, ManifestError
from penstock.runtime import abort
from penstock.runtime.abort import AbortCallbacks
from penstock.runtime.project import import_project, read_project
from penstock.runtime.runtime import Runtime

MANIFEST = "name: demo\nentrypoint: run.py\n"
RUN = """
from penstock.runtime.runtime import Runtime
rt = Runtime("manifest.yml")
@rt.command("predict")
def predict(): ...
"""


@pytest.fixture(autouse=True)
def clean_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave neither paths nor modules behind."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder: Path, **files: str) -> Path:
    """Write ``manifest`` and ``run`` (or other modules) into a project folder."""
    for name, text in files.items():
        (folder / ("manifest.yml" if name == "manifest" else f"{name}.py")).write_text(text)
    return folder


def load(folder: Path, owner: AbortCallbacks | None = None) -> Runtime:
    _, entrypoint = read_project(folder)
    assert entrypoint is not None
    return import_project(entrypoint, owner or AbortCallbacks())


def refused(folder: Path) -> str:
    with pytest.raises(AuthoringError) as error:
        load(folder)
    return str(error.value)


# -- what is loaded ------------------------------------------------------------------------------------


def test_a_folder_with_a_manifest(tmp_path: Path) -> None:
    runtime = load(write(tmp_path, manifest=MANIFEST, run=RUN))
    assert runtime.manifest.name == "demo"
    assert list(runtime.commands) == ["predict"]


def test_the_entrypoint_imports_its_neighbours(tmp_path: Path) -> None:
    run = RUN + "import penstock_test_neighbour\n"
    load(write(tmp_path, manifest=MANIFEST, run=run, penstock_test_neighbour="x = 1\n"))
    assert sys.modules["penstock_test_neighbour"].x == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("stem", "name"), [("story", "story"), ("My_Story2", "my-story2"), ("größe", "gr--e"), ("___", "---")]
)
def test_one_file_is_a_project_named_after_it(tmp_path: Path, stem: str, name: str) -> None:
    path = tmp_path / f"{stem}.py"
    path.write_text("")
    manifest, entrypoint = read_project(path)
    assert (manifest.name, entrypoint) == (name, path)


def test_an_engine_needs_no_entrypoint(tmp_path: Path) -> None:
    manifest, entrypoint = read_project(write(tmp_path, manifest="name: demo\nengine: scripted\n"))
    assert (manifest.engine, entrypoint) == ("scripted", None)


def test_the_manifest_is_found_beside_the_file_that_names_it(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "project"
    folder.mkdir(parents=True)
    assert load(write(folder, manifest=MANIFEST, run=RUN)).manifest.name == "demo"


def test_abort_callbacks_registered_at_import_belong_to_the_project(tmp_path: Path) -> None:
    run = RUN + "from penstock.runtime.abort import register_abort_callback\nregister_abort_callback(print)\n"
    owner = AbortCallbacks()
    load(write(tmp_path, manifest=MANIFEST, run=run), owner)
    assert owner._callbacks == [print]
    assert print not in abort._unowned._callbacks


# -- what is refused -----------------------------------------------------------------------------------


def test_no_project_there(tmp_path: Path) -> None:
    assert "has no manifest.yml; name a project folder or a .py file" in refused(tmp_path)
    assert "is neither a folder with manifest.yml nor a .py file" in refused(tmp_path / "missing")
    (tmp_path / "notes.txt").write_text("")
    assert "nor a .py file" in refused(tmp_path / "notes.txt")


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ("name: demo\n", "names neither an entrypoint nor an engine; add one"),
        ("name: demo\nentrypoint: missing.py\n", "missing.py does not exist"),
        ("name: demo\nentrypoint: .\n", "does not exist"),
        ("name: demo\nentrypoint: ../run.py\n", "lies outside the project"),
        ("name: demo\nentrypoint: /etc/passwd\n", "lies outside the project"),
    ],
)
def test_an_entrypoint_that_cannot_be_is_refused(tmp_path: Path, manifest: str, said: str) -> None:
    write(tmp_path, run=RUN)
    folder = tmp_path / "project"
    folder.mkdir()
    assert said in refused(write(folder, manifest=manifest))


def test_a_link_does_not_lead_out_of_the_project(tmp_path: Path) -> None:
    write(tmp_path, run=RUN)
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "run.py").symlink_to(tmp_path / "run.py")
    assert "lies outside the project" in refused(write(folder, manifest=MANIFEST))


@pytest.mark.parametrize(
    ("run", "found"),
    [("x = 1\n", "makes no Runtime"), (RUN + "other = Runtime()\n", "makes 2 Runtimes")],
)
def test_an_entrypoint_makes_exactly_one_runtime(tmp_path: Path, run: str, found: str) -> None:
    message = refused(write(tmp_path, manifest=MANIFEST, run=run))
    assert found in message
    assert "it needs exactly one: `rt = Runtime('manifest.yml')`" in message


def test_a_mistake_in_the_manifest_is_told_before_anything_is_imported(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"manifest\.yml"):
        read_project(write(tmp_path, manifest="name: Not A Name\nentrypoint: run.py\n", run="1 / 0"))


@pytest.mark.parametrize(
    ("run", "error"),
    [("1 / 0", ZeroDivisionError), ("def broken(:", SyntaxError), ("import nope_", ImportError)],
)
def test_what_the_file_raises_comes_out_and_leaves_no_half_module(
    tmp_path: Path, run: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        load(write(tmp_path, manifest=MANIFEST, run=run))
    assert "penstock_project_run" not in sys.modules
    # The next attempt, after a correction, is not disturbed by it.
    assert load(write(tmp_path, run=RUN)).manifest.name == "demo"


def test_a_runtime_made_elsewhere_is_not_taken_for_the_projects(tmp_path: Path) -> None:
    load(write(tmp_path, manifest=MANIFEST, run=RUN))
    Runtime()
    assert load(tmp_path).manifest.name == "demo"
