"""Words of penstock's JSON Schemas that the standard has not."""

from __future__ import annotations

from typing import Final

STREAM: Final = "x-stream"
"""On an input that is a stream: the array is what of it comes with the request."""

CLARIFAI: Final = "x-clarifai"
"""Which of Clarifai's types a form stands for, where its JSON does not tell: ``image``, ``named_fields``."""
