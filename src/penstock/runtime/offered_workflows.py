"""Workflows that a runner offers: as it says them, and as the gateway runs them.

Whoever offers one must not be able to hold up everybody: a gateway evaluates no schema of a runner's, follows
references into values only, and has the steps be commands of the same runner.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import msgspec
from pydantic import ValidationError

from penstock.errors import CallError, ErrorCode
from penstock.protocol.runners import OfferedWorkflow
from penstock.runtime.manifest_lines import Fault
from penstock.runtime.manifest_parts import WorkflowSpec
from penstock.runtime.offers import MAX_CHECKED
from penstock.runtime.plain_input import plainly_fits
from penstock.runtime.workflow import Workflow, plan_workflow
from penstock.runtime.workflow_input import WorkflowInput, defaults_of

MAX_STEPS = 256
MAX_REFERENCES = 1024  # each may repeat a whole input


class OfferedWorkflowInput(WorkflowInput):
    """The input of a workflow that a runner checks: here it only has to be an object.

    Args:
        schema: What the runner gave as its JSON Schema; it is shown, and never evaluated.
    """

    def __init__(self, schema: Mapping[str, Any] | None) -> None:
        super().__init__(None)
        self.schema = schema or {}
        properties = self.schema.get("properties")
        self._defaults = defaults_of(properties) if isinstance(properties, dict) else {}

    def surely_takes(self, text: bytes) -> bool:
        """Whether ``text``, JSON, is small and plainly fits; what does not may still be right."""
        if len(text) > MAX_CHECKED:
            return False
        try:
            return not self.schema or plainly_fits(self.validate(text), self.schema)
        except CallError:
            return False


def offer_workflows(specs: Mapping[str, WorkflowSpec]) -> list[OfferedWorkflow]:
    """Return what a runner offers of its manifest's workflows."""
    return [
        OfferedWorkflow(name=name, spec=spec.model_dump(mode="json", exclude_unset=True))
        for name, spec in specs.items()
    ]


def plan_offered(offered: Sequence[OfferedWorkflow], commands: Collection[str]) -> dict[str, Workflow]:
    """Return the workflows that a runner offers, ready to run.

    Args:
        commands: Those that the same runner offers.

    Raises:
        CallError: ``invalid_argument``; one of them is none.
    """
    return {each.name: _plan(each, commands) for each in offered}


def _plan(offered: OfferedWorkflow, commands: Collection[str]) -> Workflow:
    try:
        spec = WorkflowSpec.model_validate(offered.spec)
    except (ValidationError, RecursionError) as error:
        raise _refusal(offered, str(error)) from error
    if msgspec.json.encode(offered.spec).count(b"${") > MAX_REFERENCES:
        raise _refusal(offered, f"it has more than {MAX_REFERENCES} references")
    faults: list[Fault] = []
    plan = plan_workflow(offered.name, spec.model_copy(update={"input_schema": None}), faults)
    if faults:
        raise _refusal(offered, "; ".join(fault.message for fault in faults))
    steps = list(chain.from_iterable(plan.stages))
    if len(steps) > MAX_STEPS:
        raise _refusal(offered, f"it has {len(steps)} steps, and may have {MAX_STEPS}")
    foreign = sorted({step.command for step in steps}.difference(commands))
    if foreign:
        raise _refusal(offered, f"its steps run {', '.join(foreign)}, which this runner does not offer")
    return replace(plan, input=OfferedWorkflowInput(spec.input_schema))


def _refusal(offered: OfferedWorkflow, why: str) -> CallError:
    return CallError(f"the workflow {offered.name}: {why[:500]}", ErrorCode.INVALID_ARGUMENT)
