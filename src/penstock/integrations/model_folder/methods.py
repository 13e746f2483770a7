"""A model's methods as commands: their types, defaults and descriptions as the SDK reads them."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import Field

from penstock.errors import AuthoringError
from penstock.integrations.model_folder.conversion import Conversion
from penstock.integrations.model_folder.input_stream import StreamingThreads
from penstock.integrations.model_folder.model_class import METHOD
from penstock.protocol.clarifai.names import OPENAI_METHODS
from penstock.protocol.dispatch import OpenAIKind
from penstock.runtime.parameters import State
from penstock.runtime.runtime import Runtime

STATE = "model_instance"
"""The name under which `initialize` hands the model to the methods."""

_RESERVED = frozenset((STATE, "with_proto"))
_STREAMS = (Iterator, Iterable, Generator)
_EMPTY = inspect.Parameter.empty
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class Method:
    """A marked method: the function as it is written, and what its annotations say.

    Attributes:
        parameters: What callers send, in their JSON form and with plain defaults.
        item: The JSON form of what it returns or yields.
        stream: The parameter that is a stream of input.
        as_text: It gives text, which some methods of the SDK return encoded.
    """

    name: str
    function: Callable[..., Any]
    parameters: tuple[inspect.Parameter, ...]
    item: Any
    streams: bool
    stream: str | None
    as_text: bool

    @property
    def defaults(self) -> Mapping[str, Any]:
        """What stands for parameters that a caller leaves out."""
        return {p.name: p.default for p in self.parameters if p.default is not _EMPTY}


def marked(model_class: type) -> Mapping[str, Callable[..., Any]]:
    """Return a model's marked methods by name; a subclass may override one without marking it again."""
    found: dict[str, Callable[..., Any]] = {}
    for base in reversed(model_class.__mro__):
        for name, value in vars(base).items():
            if inspect.isfunction(value) and hasattr(value, METHOD):
                found[name] = value
    return found


def read_method(function: Callable[..., Any], conversion: Conversion, where: str) -> Method:
    """Return what the annotations of a marked method say.

    Raises:
        AuthoringError: It cannot be served; the message says how to fix it.
    """
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise AuthoringError(f"{where} is async; model methods are plain functions: take `async` off it")
    signature, hints = inspect.signature(function), _hints(function, where)
    if "return" not in hints:
        raise AuthoringError(f"{where} does not say what it returns; add `-> str`, or `-> Iterator[str]`")
    given = list(signature.parameters.values())[1:]
    vague = [parameter for parameter in given if parameter.kind not in _NAMED]
    if vague:
        raise AuthoringError(f"{where} takes {vague[0]}, which has no name for callers; name each parameter")
    taken = [parameter.name for parameter in given if parameter.name in _RESERVED]
    if taken:
        raise AuthoringError(f"{where} has a parameter called {taken[0]}, which is taken; rename it")
    streaming = [p.name for p in given if _is_stream(hints.get(p.name))]
    returned, streams = hints["return"], _is_stream(hints["return"])
    if streaming and not streams:
        raise AuthoringError(
            f"{where} takes a stream ({streaming[0]}), so it must give one: return an Iterator[...]"
        )
    item = _item_of(returned) if streams else returned
    return Method(
        function.__name__,
        function,
        tuple(_parameter(p, hints.get(p.name, Any), conversion) for p in given),
        conversion.hint(item),
        streams,
        streaming[0] if streaming else None,
        item is str,
    )


def add_command(
    runtime: Runtime, method: Method, conversion: Conversion, threads: StreamingThreads, concurrency: int
) -> None:
    """Make a method a command.

    Raises:
        AuthoringError: It cannot be one; the message says how to fix it.
    """
    served = _served(method, conversion, threads)
    _describe(served, method)
    register = runtime.streaming_command if method.streams else runtime.command
    speaks_openai = method.name in OPENAI_METHODS and [given.name for given in method.parameters] == ["msg"]
    model = runtime.manifest.name if speaks_openai else None
    openai: OpenAIKind | None = "transport" if speaks_openai else None
    register(method.name, concurrency=concurrency, openai=openai, model=model)(served)


def _served(method: Method, conversion: Conversion, threads: StreamingThreads) -> Callable[..., Any]:
    name, defaults, stream = method.name, method.defaults, method.stream

    def write(value: Any) -> Any:
        if type(value) is bytes and method.as_text:
            return value.decode()
        return conversion.write(value)

    def answer(**given: Any) -> Any:
        model = given.pop(STATE)
        return write(getattr(model, name)(**{**defaults, **given}))

    def generate(**given: Any) -> Iterator[Any]:
        model = given.pop(STATE)
        items = getattr(model, name)(**{**defaults, **given})
        try:
            for item in items:
                yield write(item)
        finally:
            if hasattr(items, "close"):
                items.close()

    async def converse(**given: Any) -> AsyncIterator[Any]:
        async with aclosing(threads.items(generate, given, stream or "")) as items:
            async for item in items:
                yield item

    if stream:
        return converse
    return generate if method.streams else answer


def _describe(served: Callable[..., Any], method: Method) -> None:
    """Give a function the name, description and signature that callers of the command see."""
    state = inspect.Parameter(STATE, inspect.Parameter.KEYWORD_ONLY, annotation=State[Any])
    parameters = [*method.parameters, state]
    returned = Iterator[method.item] if method.streams else method.item  # type: ignore[name-defined]
    served.__doc__ = method.function.__doc__
    served.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": returned}
    served.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    served.__wrapped__ = method.function  # type: ignore[attr-defined]  # its place, for messages


def _hints(function: Callable[..., Any], where: str) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except NameError as error:
        raise AuthoringError(f"{where}: a type hint names {error.name!r}, which is not defined") from error


def _is_stream(hint: Any) -> bool:
    return hint in _STREAMS or get_origin(hint) in _STREAMS


def _item_of(stream: Any) -> Any:
    return (get_args(stream) or (Any,))[0]


def _parameter(parameter: inspect.Parameter, hint: Any, conversion: Conversion) -> inspect.Parameter:
    if _is_stream(hint):
        form: Any = AsyncIterator[conversion.hint(_item_of(hint))]  # type: ignore[misc]
    else:
        form = conversion.hint(hint)
    default = parameter.default
    if isinstance(default, conversion.param):
        form, default = _with_bounds(form, default), default.default
    if default is None:
        form = Union[form, None]  # noqa: UP007 - it may be no class
    return parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=form, default=default)


def _with_bounds(form: Any, param: Any) -> Any:
    """Return a type with what the SDK's ``Param`` says of it."""
    if param.choices and all(isinstance(choice, (str, int)) for choice in param.choices):
        form = Literal[tuple(param.choices)]
    return Annotated[form, Field(description=param.description, ge=param.min_value, le=param.max_value)]
