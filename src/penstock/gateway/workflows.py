"""The workflows that runners offer; the gateway runs them, their steps run on whichever runner."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.errors import CallError, ErrorCode
from penstock.gateway.runner import Runner
from penstock.runtime.offered_workflows import OfferedWorkflowInput
from penstock.runtime.workflow import Workflow


class OfferedWorkflows:
    """Knows them: of several runners that offer one the first counts."""

    def __init__(self) -> None:
        self.known: dict[str, Workflow] = {}
        """All that were ever offered."""
        self._offering: dict[str, dict[Runner, Workflow]] = {}

    def add(self, runner: Runner) -> None:
        """A runner came."""
        for name, workflow in runner.workflows.items():
            there = self._offering.setdefault(name, {})
            there[runner] = workflow
            self.known[name] = next(iter(there.values()))

    def discard(self, runner: Runner) -> None:
        """A runner is gone."""
        for name in runner.workflows:
            there = self._offering[name]
            del there[runner]
            if there:
                self.known[name] = next(iter(there.values()))
            else:
                del self._offering[name]

    def offered(self) -> Mapping[str, Workflow]:
        """Return those that are offered by a runner that is there, or may come back."""
        return {name: self.known[name] for name in self._offering}

    async def check(self, name: str, text: bytes) -> None:
        """See that a workflow takes the input ``text``, JSON; what does not plainly fit is put to a runner.
        One that nobody ever offered is let pass, to be refused with all the others.

        Raises:
            CallError: It is refused, or there is no runner that could say: ``unavailable``.
        """
        workflow = self.known.get(name)
        if workflow is None:
            return
        there = self._offering.get(name, {})
        if not any(runner.expected for runner in there):
            raise _unavailable(f"no runner that offers the workflow {name} is connected; try again")
        given = workflow.input
        given.validate(text)
        if isinstance(given, OfferedWorkflowInput) and not given.surely_takes(text):
            runner = next((runner for runner in there if runner.takes), None)
            if runner is None:
                raise _unavailable(f"no runner is there to say whether {name} takes this input; try again")
            await runner.check_workflow(name, text)


def _unavailable(text: str) -> CallError:
    return CallError(text, ErrorCode.UNAVAILABLE, retry_after_s=5)
