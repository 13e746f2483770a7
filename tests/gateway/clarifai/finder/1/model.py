"""Finds the same two things in every picture, one of them with two concepts."""

import sys
import time

from clarifai.runners.models.model_class import ModelClass
from clarifai.runners.utils.data_types import Concept, Image, Region


class Finder(ModelClass):
    def load_model(self):
        self.looked = 0

    @ModelClass.method
    def predict(self, image: Image) -> list[Region]:
        assert image.bytes[:2] in (b"\xff\xd8", b"\x89P")  # a JPEG or a PNG
        self.looked += 1
        sys.stdout.write(f"looked {self.looked}\n")
        sys.stdout.flush()
        cat = [Concept(name="cat", value=0.75), Concept(name="animal", value=0.9)]
        return [
            Region(box=[0.25, 0.5, 0.75, 1.0], concepts=cat, track_id="t1"),
            Region(box=[0.0, 0.0, 0.25, 0.25], concepts=[Concept(name="dog", value=0.5)]),
        ]

    @ModelClass.method
    def slowly(self, image: Image) -> list[Region]:
        time.sleep(0.2)
        return self.predict(image)

    @ModelClass.method
    def blind(self, text: str) -> str:
        return text
