"""Workflows: the steps of a manifest, checked and ready to run (WIRE.md section 4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from penstock.protocol.dispatch import WorkflowDescription
from penstock.runtime.conditions import Condition
from penstock.runtime.manifest_lines import Fault, Place
from penstock.runtime.manifest_parts import GroupSpec, StepSpec, WorkflowSpec
from penstock.runtime.nearest import nearest
from penstock.runtime.references import Reference, Template
from penstock.runtime.workflow_input import WorkflowInput


@dataclass(frozen=True)
class Step:
    """One call of a workflow.

    Attributes:
        place: Where it stands in the manifest.
        input: Gives the command's input.
        timeout_s: The budget of each attempt.
        attempts: How often it is tried in all.
        delay_s: The wait between two attempts, in seconds.
    """

    id: str
    place: Place
    command: str
    input: Template
    when: Condition | None
    timeout_s: float | None
    attempts: int
    delay_s: float


@dataclass(frozen=True)
class Workflow:
    """Stages that run one after the other, the steps of each at the same time.

    Attributes:
        output: What the call answers; None: all steps.
    """

    id: str
    description: str
    input: WorkflowInput
    stages: tuple[tuple[Step, ...], ...]
    output: Template | None

    def steps(self) -> Iterator[Step]:
        """Yield the steps, in the order they are written."""
        return chain.from_iterable(self.stages)

    def describe(self) -> WorkflowDescription:
        """Return what `GET /v2/commands` shows."""
        return WorkflowDescription(
            description=self.description or None,
            input_schema=self.input.schema,
            steps=[_describe(stage) for stage in self.stages],
        )


def plan_workflow(name: str, spec: WorkflowSpec, faults: list[Fault]) -> Workflow:
    """Check a workflow; what is wrong with it is added to ``faults``, and then it must not be run."""
    return _Planner(name, faults).plan(spec)


def _describe(stage: tuple[Step, ...]) -> Mapping[str, Any]:
    shown = [{"id": step.id, "command": step.command} for step in stage]
    return shown[0] if len(shown) == 1 else {"parallel": shown}


class _Planner:
    def __init__(self, name: str, faults: list[Fault]) -> None:
        self._name = name
        self._place: Place = ("workflows", name)
        self._faults = faults
        self._ids: set[str] = set()  # of all steps
        self._done: set[str] = set()  # of those that are over where references are looked at

    def plan(self, spec: WorkflowSpec) -> Workflow:
        """Return the workflow."""
        groups = [self._group(index, item) for index, item in enumerate(spec.steps)]
        for place, step in chain.from_iterable(groups):
            if step.id in self._ids:
                self._fault((*place, "id"), f"another step is called {step.id}; rename one of them")
            self._ids.add(step.id)
        stages = tuple(self._stage(group) for group in groups)
        output = None if spec.output is None else self._template(spec.output, (*self._place, "output"))
        return Workflow(self._name, spec.description, self._input(spec), stages, output)

    def _group(self, index: int, item: StepSpec | GroupSpec) -> list[tuple[Place, StepSpec]]:
        place = (*self._place, "steps", index)
        if isinstance(item, StepSpec):
            return [(place, item)]
        return [((*place, "parallel", number), step) for number, step in enumerate(item.parallel)]

    def _stage(self, group: list[tuple[Place, StepSpec]]) -> tuple[Step, ...]:
        stage = tuple(self._step(place, step) for place, step in group)
        self._done.update(step.id for step in stage)
        return stage

    def _step(self, place: Place, spec: StepSpec) -> Step:
        return Step(
            id=spec.id,
            place=place,
            command=spec.command,
            input=self._step_input(spec.input, (*place, "input")),
            when=self._condition(spec.when, (*place, "when")),
            timeout_s=spec.timeout_s,
            attempts=spec.retry.attempts,
            delay_s=spec.retry.delay_s,
        )

    def _input(self, spec: WorkflowSpec) -> WorkflowInput:
        try:
            return WorkflowInput(spec.input_schema)
        except ValueError as error:
            self._fault((*self._place, "input_schema"), str(error))
            return WorkflowInput(None)

    def _step_input(self, value: Any, place: Place) -> Template:
        template = self._template(value, place)
        if isinstance(value, str) and not isinstance(template.value, Reference | None):
            self._fault(place, "text is no input; write a mapping, or one reference to one, such as ${input}")
        return template

    def _condition(self, value: object, place: Place) -> Condition | None:
        if value is None:
            return None
        try:
            condition = Condition.parse(value)
        except ValueError as error:
            self._fault(place, str(error))
            return None
        self._check(condition.references(), place)
        return condition

    def _template(self, value: Any, place: Place) -> Template:
        """Return a template; each mistake in it is told at its own place."""
        if isinstance(value, dict):
            return Template({key: self._template(item, (*place, key)).value for key, item in value.items()})
        if isinstance(value, list):
            return Template([self._template(item, (*place, i)).value for i, item in enumerate(value)])
        try:
            template = Template.parse(value)
        except ValueError as error:
            self._fault(place, str(error))
            return Template(None)
        self._check(template.references(), place)
        return template

    def _check(self, references: Iterator[Reference], place: Place) -> None:
        for reference in references:
            step = reference.step
            if step is None or step in self._done:
                continue
            if step in self._ids:
                why = f"step {step} is not over by then; refer to steps that stand before this one's group"
            else:
                why = f"no step is called {step}; {nearest(step, self._ids)}"
            self._fault(place, f"${{{reference.text}}}: {why}")

    def _fault(self, place: Place, message: str) -> None:
        self._faults.append(Fault(place, message))
