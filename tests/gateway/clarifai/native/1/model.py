"""The model that penstock serves itself, for clients of the SDK."""

from collections.abc import Iterator

from clarifai.runners.models.model_class import ModelClass
from clarifai.runners.utils.data_types import JSON, Concept, Image, NamedFields, Region


class Native(ModelClass):
    @ModelClass.method
    def predict(self, text: str, times: int = 2) -> str:
        """Say it again."""
        return text * times

    @ModelClass.method
    def generate(self, text: str, count: int = 3) -> Iterator[str]:
        for number in range(count):
            yield f"{text}{number}"

    @ModelClass.method
    def stream(self, texts: Iterator[str], mark: str = "!") -> Iterator[str]:
        for text in texts:
            yield text + mark

    @ModelClass.method
    def see(self, image: Image, names: list[str]) -> list[Concept]:
        return [Concept(name, len(image.bytes) / 10) for name in names]

    @ModelClass.method
    def find(self, image: Image) -> Region:
        return Region(box=[0.1, 0.2, 0.3, 0.4], concepts=[Concept("cat", 0.9)], id="r1")

    @ModelClass.method
    def fields(self, given: NamedFields(x=str, y=int)) -> NamedFields(z=str):
        return NamedFields(z=given.x * given.y)

    @ModelClass.method
    def value(self, value: JSON) -> JSON:
        return JSON({"it": value.value})

    @ModelClass.method
    def turn(self, data: bytes, by: float = 0.5, up: bool = True) -> bytes:
        return data[::-1] + f" {by} {up}".encode()

    @ModelClass.method
    def fail(self, text: str) -> str:
        raise ValueError("no " + text)
