"""Random workflows against a simple interpreter of what they mean: answers, skips, failures, order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import anyio
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.calls.waiting import wait_ended
from penstock.errors import CommandError
from penstock.protocol.dispatch import LOCAL
from penstock.protocol.messages import Start, decode_frame
from penstock.runtime.app import App
from penstock.runtime.manifest import Manifest
from penstock.runtime.runtime import Runtime

GIVEN = {"text": "fox", "n": 2, "yes": True, "no": False, "list": ["x", {"y": None}]}
LITERALS = ["fox", 2, 1, 0, True, None, ["x"], {"a": {"b": 0}}]
MISSING = object()


@dataclass(frozen=True)
class Ref:
    """A reference: to the input (``step`` None) or to an earlier step, and a path from there."""

    step: str | None
    path: tuple[str, ...]

    def write(self) -> str:
        return (
            "${"
            + ".".join(["input"] if self.step is None else ["steps", self.step])
            + "".join(f".{p}" for p in self.path)
            + "}"
        )

    def follow(self, answers: dict[str, Any]) -> Any:
        value = GIVEN if self.step is None else answers[self.step]
        for part in self.path:
            try:
                value = value[int(part) if isinstance(value, list) else part]
            except (KeyError, IndexError, TypeError, ValueError):
                return MISSING
        return value


@dataclass(frozen=True)
class ModelStep:
    """One step: what it is given, whether it runs, and how it behaves."""

    id: str
    value: Any  # a literal, a Ref, or a list of text and Refs to be joined
    when: tuple[str, Any, Any] | None
    items: int
    plain: bool
    fails: bool
    turns: int  # of the loop before its first item

    def write(self) -> dict[str, Any]:
        value = self.value
        if isinstance(value, Ref):
            value = value.write()
        elif isinstance(value, tuple):
            value = "".join(part.write() if isinstance(part, Ref) else part for part in value)
        more = {"fails": self.fails, "turns": self.turns} | ({} if self.plain else {"items": self.items})
        step = {"id": self.id, "command": "plain" if self.plain else "flow"}
        step |= {"input": {"name": self.id, "value": value, **more}}  # type: ignore[dict-item]
        return step if self.when is None else {**step, "when": self._condition()}

    def _condition(self) -> str:
        assert self.when is not None
        operator, *sides = self.when
        left, right = (side.write() if isinstance(side, Ref) else json.dumps(side) for side in sides)
        return {"is": left, "not": f"not {left}"}.get(operator, f"{left} {operator} {right}")

    # -- what it means -------------------------------------------------------------------------------

    def runs(self, answers: dict[str, Any]) -> Any:
        """Return whether it runs; MISSING where its condition leads to nothing."""
        if self.when is None:
            return True
        operator, *sides = self.when
        left, right = (side.follow(answers) if isinstance(side, Ref) else side for side in sides)
        if left is MISSING or (right is MISSING and operator in ("==", "!=")):
            return MISSING
        if operator in ("is", "not"):
            return bool(left) is (operator == "is")
        alike = json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)
        return alike is (operator == "==")

    def given(self, answers: dict[str, Any]) -> Any:
        if isinstance(self.value, Ref):
            return self.value.follow(answers)
        if not isinstance(self.value, tuple):
            return self.value
        parts = [part.follow(answers) if isinstance(part, Ref) else part for part in self.value]
        if any(part is MISSING for part in parts):
            return MISSING
        return "".join(p if isinstance(p, str) else json.dumps(p, separators=(",", ":")) for p in parts)

    def says(self, value: Any) -> list[Any]:
        """Return its items, or its one answer."""
        return [value] if self.plain else [{"value": value, "i": i} for i in range(self.items)]


@dataclass
class Meaning:
    """What a workflow does."""

    answers: dict[str, Any] = field(default_factory=dict)
    says: dict[str, list[Any]] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)  # of the stage it ends in; empty if it completes
    reached: list[set[str]] = field(default_factory=list)


def interpret(stages: list[list[ModelStep]]) -> Meaning:
    meaning = Meaning()
    for stage in stages:
        meaning.reached.append({step.id for step in stage})
        found: dict[str, Any] = {}
        for step in stage:
            runs = step.runs(meaning.answers)
            value = step.given(meaning.answers) if runs is True else None
            if MISSING in (runs, value) or (runs and step.fails):
                meaning.failing.add(step.id)
            said = step.says(value) if runs is True and value is not MISSING else []
            found[step.id] = said[-1] if said else None
            meaning.says[step.id] = said
        if meaning.failing:
            return meaning
        meaning.answers.update(found)
    return meaning


# -- random workflows ----------------------------------------------------------------------------------


@st.composite
def workflows(draw: st.DrawFn) -> list[list[ModelStep]]:
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    stages: list[list[ModelStep]] = []
    done: list[str] = []
    for size in sizes:
        stage = [draw(steps(f"s{len(done) + number}", tuple(done))) for number in range(size)]
        done += [step.id for step in stage]
        stages.append(stage)
    return stages


def refs(done: tuple[str, ...]) -> st.SearchStrategy[Ref]:
    inputs = st.sampled_from(
        [("text",), ("n",), ("yes",), ("no",), ("list", "0"), ("list", "1", "y"), (), ("nope",)]
    )
    to_input = inputs.map(lambda path: Ref(None, path))
    paths = st.sampled_from([(), ("value",), ("value",), ("i",), ("0",)])
    return to_input | st.builds(Ref, st.sampled_from(done), paths) if done else to_input


@st.composite
def steps(draw: st.DrawFn, name: str, done: tuple[str, ...]) -> ModelStep:
    reference = refs(done)
    text = st.lists(reference | st.sampled_from(["a", " "]), min_size=2, max_size=3).map(lambda p: ("x", *p))
    side = reference | st.sampled_from(LITERALS)
    condition = st.tuples(st.sampled_from(["is", "not", "==", "!="]), side, side)
    return ModelStep(
        id=name,
        value=draw(st.sampled_from(LITERALS) | reference | reference | text),
        when=draw(st.none() | st.none() | condition),
        items=draw(st.integers(0, 3)),
        plain=draw(st.booleans()),
        fails=draw(st.integers(0, 9)) == 0,
        turns=draw(st.integers(0, 5)),
    )


class Project:
    """The commands that random workflows are made of; it notes when each step begins and ends."""

    def __init__(self, stages: list[list[ModelStep]]) -> None:
        written = [
            stage[0].write() if len(stage) == 1 else {"parallel": [step.write() for step in stage]}
            for stage in stages
        ]
        self.events: list[tuple[str, str]] = []
        self.runtime = Runtime(Manifest.model_validate({"workflows": {"w": {"steps": written}}}))
        self.runtime.command("plain")(self.plain)
        self.runtime.streaming_command("flow")(self.flow)

    async def plain(self, name: str, value: Any, fails: bool, turns: int) -> Any:
        async for _ in self.flow(name, value, fails, turns, 0):
            pass
        return value

    async def flow(
        self, name: str, value: Any, fails: bool, turns: int, items: int
    ) -> AsyncIterator[dict[str, Any]]:
        self.events.append((name, "began"))
        try:
            for _ in range(turns):
                await asyncio.sleep(0)
            for i in range(items):
                yield {"value": value, "i": i}
            if fails:
                raise CommandError(f"{name} was told to")
        finally:
            self.events.append((name, "ended"))


async def run(stages: list[list[ModelStep]]) -> None:
    project, meaning = Project(stages), interpret(stages)
    async with App(project.runtime) as app:
        live = await app.open(Start(workflow_id="w", input=json.dumps(GIVEN).encode(), is_stream=True), LOCAL)
        with anyio.fail_after(5):
            await wait_ended(live)
        frames = [decode_frame(line) for line in live.log.read(-1, 1 << 30)]
    said: dict[str, list[Any]] = {step.id: [] for stage in stages for step in stage}
    for frame in frames[1:-1]:
        assert frame.step is not None
        said[frame.step].append(frame.data)
    check_end(frames[-1], said, meaning, stages)
    check_order(project.events, meaning)


def check_end(last: Any, said: dict[str, list[Any]], meaning: Meaning, stages: list[list[ModelStep]]) -> None:
    if not meaning.failing:
        assert (last.status, last.data) == ("completed", {"steps": meaning.answers})
        assert said == meaning.says
        return
    assert last.status == "error"
    assert last.details[0]["step"] in meaning.failing
    assert str(last.error).startswith(f"step {last.details[0]['step']}: ")
    for step in (step for stage in stages for step in stage):
        expected = meaning.says.get(step.id, [])
        # Steps beside the one that fails are cut somewhere; all others are as they should be.
        assert said[step.id] == expected[: len(said[step.id])]
        if step.id in meaning.answers:
            assert said[step.id] == expected


def check_order(events: list[tuple[str, str]], meaning: Meaning) -> None:
    """No step begins before all steps of the stages in front of it have ended."""
    over: set[str] = set()
    for stage in meaning.reached:
        own = [index for index, (name, _) in enumerate(events) if name in stage]
        before = [index for index, (name, _) in enumerate(events) if name in over]
        assert not own or not before or max(before) < min(own)
        over |= stage
    assert {name for name, _ in events} <= over
    assert all(events.count((name, "began")) == events.count((name, "ended")) == 1 for name, _ in events)


@settings(max_examples=150, deadline=None)
@given(workflows())
def test_workflows_do_what_they_mean(stages: list[list[ModelStep]]) -> None:
    anyio.run(run, stages)
