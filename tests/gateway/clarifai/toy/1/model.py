"""The model that the tests with the real runner serve."""

import sys
import threading
from collections.abc import Iterator

from clarifai.runners.models.model_class import ModelClass
from clarifai_protocol import get_item_id, register_item_abort_callback


class Toy(ModelClass):
    def load_model(self):
        self.stops = {}
        self.meeting = threading.Barrier(4)
        register_item_abort_callback(self.abort)

    def abort(self, item_id):
        self.stops.setdefault(item_id, threading.Event()).set()

    @ModelClass.method
    def predict(self, text: str, times: int = 1) -> str:
        return text * times

    @ModelClass.method
    def meet(self) -> int:
        """Four must be here at once."""
        return self.meeting.wait(10)

    @ModelClass.method
    def fail(self, text: str) -> str:
        raise ValueError("no " + text)

    @ModelClass.method
    def generate(self, text: str, count: int = 3) -> Iterator[str]:
        for number in range(count):
            yield f"{text}{number}"

    @ModelClass.method
    def hold(self, name: str) -> Iterator[str]:
        """Go on until it is cancelled."""
        stop = self.stops.setdefault(get_item_id(), threading.Event())
        yield "begun"
        for number in range(600):
            if stop.wait(0.1):
                sys.stdout.write(f"stopped {name}\n")
                return
            yield str(number)

    @ModelClass.method
    def half(self, text: str) -> Iterator[str]:
        yield text
        raise ValueError("half way")

    @ModelClass.method
    def stream(self, texts: Iterator[str], mark: str = "!") -> Iterator[str]:
        for text in texts:
            yield text + mark
