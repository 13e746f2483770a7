"""A project: finds faces.  It needs scikit-image, and nothing to download.

penstock annotate PICTURES --model examples/annotate/faces --command faces
"""

from __future__ import annotations

import skimage.data
from skimage.feature import Cascade

from penstock import Runtime, State
from penstock.annotate import Picture

rt = Runtime("manifest.yml")


@rt.command("initialize")
def initialize() -> dict[str, Cascade]:
    """Read the cascade."""
    return {"cascade": Cascade(skimage.data.lbp_frontal_face_cascade_filename())}


@rt.command("faces")
def faces(image: Picture, cascade: State[Cascade], least: int = 60, scale: float = 1.2) -> dict[str, object]:
    """Return the faces that are at least so many pixels wide."""
    most = min(image.width, image.height)
    found = cascade.detect_multi_scale(
        img=image.array(), scale_factor=scale, step_ratio=1, min_size=(least, least), max_size=(most, most)
    )
    boxes = [[one["c"], one["r"], one["c"] + one["width"], one["r"] + one["height"]] for one in found]
    return {"regions": [{"label": "face", "box": [int(side) for side in box]} for box in sorted(boxes)]}
