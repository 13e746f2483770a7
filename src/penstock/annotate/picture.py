"""A frame as a command gets it: the type of a parameter, for those who write commands."""

from __future__ import annotations

import io
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from penstock.annotate.extras import needed


class Picture(BaseModel):
    """A frame, upright.

    ::

        @rt.command("faces")
        def faces(image: Picture) -> dict[str, object]:
            pixels = image.array()

    Attributes:
        data: The picture.
        form: ``raw`` (red, green and blue of each pixel, row by row), ``png`` or ``jpeg``.
        width: In pixels.
        height: In pixels.
        name: The file's.
        frame: Its number in that file, from 0.
        t: Seconds from the first frame, exact: a decimal or a fraction.
    """

    model_config = ConfigDict(val_json_bytes="base64", ser_json_bytes="base64", frozen=True)

    data: bytes
    form: Literal["raw", "png", "jpeg"]
    width: int
    height: int
    name: str = ""
    frame: int = 0
    t: str = "0"

    def array(self) -> Any:
        """Return its pixels: a numpy array of rows, columns, and red, green and blue, 8 bits each."""
        np = needed("numpy", "the pixels of a frame")
        if self.form == "raw":
            return np.frombuffer(self.data, np.uint8).reshape(self.height, self.width, 3)
        images = needed("PIL.Image", "a frame that came as PNG or JPEG")
        return np.asarray(images.open(io.BytesIO(self.data)).convert("RGB"))
