"""Every promise has a test or is known to be pending; every behaviour test proves a promise, but for those of
features that no promise speaks of.

The test files are read, not imported, so that this holds whatever part of the suite is run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from behaviour.promises import FOLDER, promise, read

TITLES = {
    "The whole of XUMI: WebSocket, state, manifest, workflows, unchanged code",
    "Hostile input, speed and papers",
    "Cancellation that reaches the engine, and the engines people use",
    "Runners that dial out, and the gateway they dial",
    "no issue yet",
}

BEYOND = {"test_encrypted.py", "test_kv.py", "test_kv_events.py", "test_workflows.py"}
"""Files about what no promise speaks of: certificates, KV caches, workflows."""

PROMISES = read("promises")
PENDING = read("pending")


def _tests() -> Iterator[tuple[str, list[str]]]:
    """Yield each behaviour test with the ids it names."""
    for path in sorted(FOLDER.glob("test_*.py")):
        if path.name == "test_manifest.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            if is_function and node.name.startswith("test_"):
                yield f"{path.name}::{node.name}", _ids(node.decorator_list)


def _ids(decorators: list[ast.expr]) -> list[str]:
    calls = [mark for mark in decorators if isinstance(mark, ast.Call)]
    named = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "promise"]
    return [ast.literal_eval(argument) for call in named for argument in call.args]


FOUND = list(_tests())
TESTS = dict(FOUND)
TESTED = {id for ids in TESTS.values() for id in ids}


def test_every_behaviour_test_names_known_promises() -> None:
    assert len(TESTS) > 80
    assert {test for test, ids in TESTS.items() if not ids and test.partition("::")[0] not in BEYOND} == set()
    assert {test: ids for test, ids in TESTS.items() if not set(ids) <= set(PROMISES)} == {}


def test_no_name_is_taken_twice() -> None:
    assert len(TESTS) == len(FOUND)


def test_every_promise_is_tested_or_pending() -> None:
    assert set(PROMISES) - TESTED - set(PENDING) == set()
    assert {f"P{number}" for number in range(1, 42)} <= set(PROMISES)


@pytest.mark.parametrize("id", PENDING)
def test_what_is_pending_says_what_brings_it_and_what_is_missing(id: str) -> None:
    entry = PENDING[id]
    assert id in PROMISES
    assert entry["by"] in TITLES
    # A promise with a first test must say so, or nobody would notice when its last one goes.
    assert entry.get("partly", False) == (id in TESTED)
    assert bool(entry.get("missing")) == entry.get("partly", False)


def test_the_mark_is_the_one_that_is_looked_for() -> None:
    assert promise("P1").name == "promise"
    assert _ids(ast.parse('@promise("P1", "P2")\ndef f(): ...').body[0].decorator_list) == ["P1", "P2"]
