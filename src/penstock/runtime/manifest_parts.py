"""The parts of a manifest, checked each for itself (WIRE.md section 4)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    InstanceOf,
    Tag,
    model_validator,
)

from penstock.errors import CallError
from penstock.protocol.dispatch import OpenAIKind
from penstock.protocol.messages import MAX_TIMEOUT_S, OnDisconnect

Steps = TypeVar("Steps", bound=tuple[Any, ...])
Seconds = Annotated[float, Field(gt=0, le=MAX_TIMEOUT_S, allow_inf_nan=False)]
Delay = Annotated[float, Field(ge=0, le=MAX_TIMEOUT_S, allow_inf_nan=False)]
StepId = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$")]
Isolation = Literal["inline", "thread", "process"]
WorkflowId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")]


class Part(BaseModel):
    """A mapping in a manifest.  A key without a value is as good as absent; keys this version does not know
    are kept, to be warned about."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, value: object) -> object:
        if isinstance(value, dict):
            return {key: item for key, item in value.items() if item is not None}
        return {} if value is None else value


class Startup(Part):
    """A command run before the server is ready; written as its name, or with an input."""

    command: str
    input: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: object) -> object:
        return {"command": value} if isinstance(value, str) else value


class Timeouts(Part):
    """Budgets of one call, in seconds; None is no bound.

    Attributes:
        queue_s: From its acceptance until its code starts.
        first_item_s: From there to its first item, or to its answer.
        gap_s: From one item to the next, or to the end; time in which its readers hold it back is not
            counted.
        total_s: From its acceptance to its end; a call's own `timeout` wins if it is smaller.
    """

    queue_s: Seconds | None = None
    first_item_s: Seconds | None = None
    gap_s: Seconds | None = None
    total_s: Seconds | None = None


def _on_disconnect(value: object) -> object:
    if isinstance(value, OnDisconnect):
        return value
    try:
        return OnDisconnect.parse(value)
    except CallError as error:
        raise ValueError(error.message) from error


class CommandSettings(Part):
    """Settings of one command; None leaves the decorator's setting, or the default, in force.

    Attributes:
        concurrency: How many calls run at once.
        queue: How many more may wait.
        isolation: Where its code runs, if not where commands of its kind do.
        interrupt: Whether a cancel may interrupt its code, which runs in a thread, at any step.
        openai: Which OpenAI-compatible route serves it.
        idempotent: Running it twice does no harm, so a call may move to another runner before its first item.
        on_disconnect: What happens to a call that does not say so itself when its last reader has gone.
    """

    concurrency: Annotated[int, Field(ge=1)] | None = None
    queue: Annotated[int, Field(ge=0)] | None = None
    isolation: Isolation | None = None
    interrupt: bool | None = None
    timeouts: Timeouts = Timeouts()
    openai: OpenAIKind | None = None
    idempotent: bool = False
    on_disconnect: Annotated[InstanceOf[OnDisconnect], BeforeValidator(_on_disconnect)] | None = None


NO_SETTINGS = CommandSettings()


class Retry(Part):
    """How often a step is tried in all, and how long it waits in between."""

    attempts: Annotated[int, Field(ge=1, le=100)] = 1
    delay_s: Delay = 0.0


def _step_input(value: object) -> object:
    if isinstance(value, (dict, str)):
        return value
    raise ValueError("should be a mapping, or one reference to one, such as ${input}")


class StepSpec(Part):
    """One step of a workflow.

    Attributes:
        input: What the command is given, or one reference to all of it.
        when: A condition; the step is skipped where it does not hold.
        timeout_s: The budget of each attempt.
    """

    id: StepId
    command: str
    input: Annotated[Any, BeforeValidator(_step_input)] = {}
    when: Any = None
    timeout_s: Seconds | None = None
    retry: Retry = Retry()


def _some(steps: Steps) -> Steps:
    if not steps:
        raise ValueError("needs at least one step")
    return steps


class GroupSpec(Part):
    """Steps that run at the same time."""

    parallel: Annotated[tuple[StepSpec, ...], AfterValidator(_some)]


def _kind(value: object) -> str:
    parallel = isinstance(value, GroupSpec) or (isinstance(value, dict) and "parallel" in value)
    return "group" if parallel else "step"


Stage = Annotated[Annotated[StepSpec, Tag("step")] | Annotated[GroupSpec, Tag("group")], Discriminator(_kind)]


class WorkflowSpec(Part):
    """A workflow, as its author wrote it.

    Attributes:
        input_schema: JSON Schema of the input.
        output: What the call answers, with references; all steps, if there is none.
    """

    description: str = ""
    input_schema: dict[str, Any] | None = None
    output: Any = None
    steps: Annotated[tuple[Stage, ...], AfterValidator(_some)]
