"""Parameters: type hints as the schema of a command's input (WIRE.md section 5)."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python
from typing_extensions import NotRequired, Required, TypedDict

from penstock.errors import AuthoringError, CallError, ErrorCode
from penstock.protocol.marks import STREAM

MAX_FAULTS = 20  # told to a caller at once
MAX_LISTED = 1000  # faults that are looked at
MAX_NAME = 100  # characters of a name that are sent back
MAX_SAID = 300  # ... and of what is wrong with it, which may quote what was sent

T = TypeVar("T")
_EMPTY = inspect.Parameter.empty
_REFUSED: Mapping[Any, str] = {
    inspect.Parameter.VAR_POSITIONAL: "takes *{}: name each parameter instead",
    inspect.Parameter.VAR_KEYWORD: "takes **{}: name each parameter, so that callers' mistakes are found",
    inspect.Parameter.POSITIONAL_ONLY: "takes {} by position only: remove the '/', inputs are passed by name",
}
_STREAMS = (AsyncIterator, AsyncIterable)
_CONFIG = ConfigDict(
    extra="forbid",
    val_json_bytes="base64",
    ser_json_bytes="base64",  # nothing is written by it, but the schema takes the name of the form from here
    allow_inf_nan=False,
)


class State(Generic[T]):
    """Marks a parameter as state: ``engine: State[Engine]`` is filled from what `initialize` returned and
    is not part of the input."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a command.

    Attributes:
        hint: Its type; Any where the author gives none.
        is_state: It is filled from state whatever the manifest says.
        is_stream: It is an async iterator, filled by the caller while the command runs; ``hint`` is the type
            of its items.
    """

    name: str
    hint: Any
    default: Any
    is_state: bool
    is_stream: bool = False

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is _EMPTY


def read_parameters(function: Callable[..., Any], where: str) -> tuple[Parameter, ...]:
    """Return the parameters of an author's function.

    Raises:
        AuthoringError: A kind of parameter, or a type, that cannot be served.
    """
    try:
        signature = inspect.signature(function)
        hints = get_type_hints(function, include_extras=True)
    except NameError as error:
        raise AuthoringError(
            f"{where}: a type hint names {error.name!r}, which is not defined; import it where the module is "
            "run, not under TYPE_CHECKING"
        ) from error
    except (TypeError, ValueError, AttributeError, SyntaxError) as error:
        fix = "write a def that calls it, with type hints that exist"
        raise AuthoringError(f"{where}: its signature cannot be read ({error}); {fix}") from error
    return tuple(_read(parameter, hints, where) for parameter in signature.parameters.values())


def _read(parameter: inspect.Parameter, hints: Mapping[str, Any], where: str) -> Parameter:
    if (refusal := _REFUSED.get(parameter.kind)) is not None:
        raise AuthoringError(f"{where} {refusal.format(parameter.name)}")
    name, default, hint = parameter.name, parameter.default, hints.get(parameter.name, _EMPTY)
    if hint is _EMPTY:
        # Nobody sends null for a thing of no declared type: it waits for what `initialize` returns.
        return Parameter(name, Any, default, is_state=default is None)
    if get_origin(hint) in _STREAMS or hint in _STREAMS:
        return Parameter(name, (get_args(hint) or (Any,))[0], default, is_state=False, is_stream=True)
    if hint is State or get_origin(hint) is State:
        return Parameter(name, (get_args(hint) or (Any,))[0], default, is_state=True)
    if schema_of(hint) is not None:
        # `text: str = None` is how many authors write an optional input.
        public = Union[hint, None] if default is None else hint  # noqa: UP007 - hint may be no class
        return Parameter(name, public, default, is_state=False)
    if default is _EMPTY:
        raise AuthoringError(
            f"{where}: {name} has type {_show(hint)}, which has no JSON Schema; if `initialize` provides it, "
            f"write State[{_show(hint)}] or give it a default, otherwise use a pydantic model"
        )
    return Parameter(name, hint, default, is_state=True)


def _show(hint: Any) -> str:
    return getattr(hint, "__name__", None) or str(hint)


def schema_of(hint: Any) -> Mapping[str, Any] | None:
    """Return the JSON Schema of what a type takes; None when it has none."""
    try:
        return TypeAdapter(hint).json_schema()
    except PydanticUserError:
        return None


def written_schema_of(hint: Any) -> Mapping[str, Any] | None:
    """Return the JSON Schema of what a value of a type is written as: by the names of its fields, unless the
    type says otherwise; None when it has none."""
    named = getattr(hint, "model_config", {}).get("serialize_by_alias", False)
    try:
        return TypeAdapter(hint).json_schema(by_alias=named, mode="serialization")
    except PydanticUserError:
        return None


class InputSchema:
    """Checks the input of one command.

    Args:
        parameters: The public ones.
        where: Names the command in messages.
    """

    def __init__(self, parameters: tuple[Parameter, ...], where: str) -> None:
        self.names = frozenset(parameter.name for parameter in parameters)
        self.stream = _the_stream(parameters, where)
        fields = {
            p.name: (Required if p.required and not p.is_stream else NotRequired)[_as_input(p)]
            for p in parameters
        }
        record = TypedDict("Input", fields)  # type: ignore[misc]
        record.__pydantic_config__ = _CONFIG  # type: ignore[attr-defined]
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(record)
            self._item_adapter: TypeAdapter[Any] = TypeAdapter(self.stream.hint if self.stream else Any)
            self.json_schema = _with_more(self._adapter.json_schema(), parameters)
        except PydanticUserError as error:
            raise AuthoringError(f"{where}: {error.message}") from error

    def validate(self, text: bytes) -> dict[str, Any]:
        """Return the arguments that the JSON object ``text`` gives; defaults are left to the function.

        Raises:
            CallError: ``invalid_argument``, with every fault of the input.
        """
        try:
            arguments: dict[str, Any] = self._adapter.validate_json(text)
        except ValidationError as error:
            raise self._refusal(error) from error
        return arguments

    def check_item(self, text: bytes) -> Any:
        """Return one item of the input stream, given as JSON.

        Raises:
            CallError: ``invalid_argument``.
        """
        assert self.stream is not None
        try:
            return self._item_adapter.validate_json(text)
        except ValidationError as error:
            raise self._refusal(error, "data") from error

    def _refusal(self, error: ValidationError, root: str = "input") -> CallError:
        count = error.error_count()
        if count > MAX_LISTED:  # pydantic would take seconds to list them
            return CallError(
                f"{root}: {count} faults, too many to name",
                ErrorCode.INVALID_ARGUMENT,
                details=[{"path": [root], "reason": "too_many_faults"}],
            )
        faults = error.errors(include_url=False, include_context=False, include_input=False)[:MAX_FAULTS]
        places = [tuple(map(_shortened, fault["loc"])) for fault in faults]
        named = list(zip(places, faults, strict=True))
        details = [{"path": [root, *place], "reason": fault["type"]} for place, fault in named]
        text = "; ".join(self._say(place or (root,), fault["type"], fault["msg"]) for place, fault in named)
        more = f"; and {count - len(faults)} more" if count > len(faults) else ""
        return CallError(text + more, ErrorCode.INVALID_ARGUMENT, details=details)

    def _say(self, place: tuple[int | str, ...], kind: str, message: str) -> str:
        name = ".".join(map(str, place))
        if kind != "extra_forbidden" or len(place) != 1:
            return f"{name}: {message[0].lower()}{message[1:MAX_SAID]}"
        near = difflib.get_close_matches(name, self.names, n=1, cutoff=0.5)
        hint = (
            f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(self.names)) or 'none'}"
        )
        return f"{name}: unknown input{hint}"


def _shortened(part: int | str) -> int | str:
    return part if isinstance(part, int) or len(part) <= MAX_NAME else f"{part[:MAX_NAME]}…"


def _the_stream(parameters: tuple[Parameter, ...], where: str) -> Parameter | None:
    streams = [parameter for parameter in parameters if parameter.is_stream]
    if len(streams) > 1:
        names = ", ".join(stream.name for stream in streams)
        raise AuthoringError(
            f"{where} takes several streams ({names}); messages name a call, not a parameter"
        )
    return streams[0] if streams else None


def _as_input(parameter: Parameter) -> Any:
    # What is known of a stream at the start can come with the request.
    return list[parameter.hint] if parameter.is_stream else parameter.hint  # type: ignore[name-defined]


def _with_more(schema: dict[str, Any], parameters: tuple[Parameter, ...]) -> dict[str, Any]:
    for parameter in parameters:
        if parameter.is_stream:
            schema["properties"][parameter.name][STREAM] = True
        if not parameter.required:
            try:
                default = to_jsonable_python(parameter.default)
            except PydanticSerializationError:
                continue  # a default that is no JSON is the function's own affair
            schema["properties"][parameter.name]["default"] = default
    return schema
