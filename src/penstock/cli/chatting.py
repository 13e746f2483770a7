"""One run of `penstock chat`: turns are read in this thread, answers come in that of an event loop.

So a line can be edited while connections are kept alive, and Ctrl-C interrupts what this thread waits for: a
line, or an answer.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from importlib import import_module
from typing import Any

import typer
from anyio.from_thread import BlockingPortal, start_blocking_portal

from penstock.cli.conversation import ChatModel, Conversation, chat_models, choose
from penstock.cli.exits import Exit
from penstock.cli.interrupts import Interrupts
from penstock.cli.output import TextOutput
from penstock.cli.turns import Turn, is_terminal, read_piped, read_turn, read_typed
from penstock.client import AsyncClient
from penstock.errors import CallCancelled, CallError, PenstockError
from penstock.protocol.openai_api.pieces import piece_of

HELP = """\
/reset          forget what was said
/system TEXT    tell the model something before anything else; without TEXT nothing
/model NAME     talk to another model; without NAME show whom one can talk to
/help           show this
/exit           leave, as Ctrl-D does
A line that ends in \\ goes on in the next one; \"\"\" begins and ends a text of several lines.
Ctrl-C cancels an answer."""


class Chatting:
    """A conversation with the models of a server.

    Args:
        client: Reaches them; it is closed at the end.
        model: Whom to talk to first.
        system: What the model is told first.
    """

    def __init__(self, client: AsyncClient, model: str | None, system: str | None) -> None:
        self._client = client
        self._asked = model
        self._conversation = Conversation(system)
        self._at_terminal = is_terminal()
        self._warned = False
        self._models: list[ChatModel] = []
        self._orders: Mapping[str, Callable[[str], None]] = {
            "/reset": self._reset,
            "/system": self._tell,
            "/model": self._choose,
            "/help": lambda _: print(HELP),
        }

    def run(self) -> None:
        """Read turns and print answers until nothing more is typed.

        Raises:
            PenstockError: Nobody can be talked to; or, where nobody sits at a terminal, an answer failed.
            typer.Exit: Ctrl-C ended it.
            UnicodeError: What was typed is no text.
        """
        try:
            with start_blocking_portal() as portal, portal.wrap_async_context_manager(self._client):
                self._models = chat_models(portal.call(self._client.commands))
                self._model = choose(self._models, self._asked)
                self._greet()
                with suppress(EOFError):
                    while self._take_turn(portal):
                        pass
        except KeyboardInterrupt:
            raise typer.Exit(Exit.INTERRUPTED) from None

    def _greet(self) -> None:
        if not self._at_terminal:
            return
        with suppress(ModuleNotFoundError):  # not everywhere; lines are read without history then
            import_module("readline")
        print(f"{self._model.name} · /help · Ctrl-D leaves")

    def _take_turn(self, portal: BlockingPortal) -> bool:
        """Read and answer one turn; returns False if it was to leave."""
        try:
            turn = self._read()
        except KeyboardInterrupt:
            if self._warned or not self._at_terminal:
                raise
            self._warned = True
            print("\n(again: leave)")
            return True
        self._warned = self._warned and not turn.text
        if turn.order is not None:
            name, rest = turn.order
            if name == "/exit":
                return False
            if name in self._orders:
                self._orders[name](rest)
            else:
                print(f"there is no {name}; /help shows what there is")
        elif turn.text:
            self._answer(portal, turn.text)
        return True

    def _read(self) -> Turn:
        if not self._at_terminal:
            return read_turn(read_piped)
        try:
            return read_turn(read_typed)
        except EOFError:
            print()
            raise

    # -- answers -------------------------------------------------------------------------------------

    def _answer(self, portal: BlockingPortal, question: str) -> None:
        try:
            answer = self._ask(portal, question)
        except PenstockError as error:
            if not self._at_terminal:
                raise
            code = f" ({error.code.value})" if isinstance(error, CallError) else ""
            print(f"penstock: {error}{code}", file=sys.stderr)
        else:
            if answer is not None:
                self._conversation.keep(question, answer)

    def _ask(self, portal: BlockingPortal, question: str) -> str | None:
        """Print what is answered, and return it; None if that was interrupted before anything was said."""
        task_id, said = f"chat-{secrets.token_hex(8)}", list[str]()
        given = self._conversation.input_for(self._model, question)
        with Interrupts() as interrupts:
            answering = portal.start_task_soon(self._print_answer, task_id, given, said)
            if interrupts.end_first(answering):
                answering.result()
                return "".join(said)
            portal.call(self._cancel, task_id, answering)
            if not interrupts.end_first(answering, after=1) or not self._at_terminal:
                raise KeyboardInterrupt
        with suppress(CallCancelled, CancelledError):
            answering.result()
        print("(cancelled)")
        return "".join(said) or None

    async def _print_answer(self, task_id: str, given: Mapping[str, Any], said: list[str]) -> None:
        output = TextOutput()
        try:
            # Whatever the command's settings say: nobody will come back for an answer that was left.
            async with self._client.stream(
                self._model.command, given, task_id=task_id, on_disconnect="cancel"
            ) as items:
                async for item in items:
                    said.append(piece_of(item).text)
                    output.item(said[-1])
        finally:
            output.end_line()

    async def _cancel(self, task_id: str, answering: Future[None]) -> None:
        try:
            await self._client.cancel(task_id)
        except PenstockError:
            # Not there yet, or nobody to tell: going away is the other way to cancel.
            answering.cancel()

    # -- orders --------------------------------------------------------------------------------------

    def _reset(self, _: str) -> None:
        self._conversation.reset()

    def _tell(self, text: str) -> None:
        self._conversation.system = text or None

    def _choose(self, name: str) -> None:
        if not name:
            print("\n".join(f"{'*' if model is self._model else ' '} {model}" for model in self._models))
            return
        try:
            self._model = choose(self._models, name)
        except CallError as error:
            print(error.message)
