"""A project: finds bright things as masks, holes and all, by Otsu's threshold.  It needs scikit-image.

penstock annotate PICTURES --model examples/annotate/masks --command things --polygons
"""

from __future__ import annotations

import numpy as np
from skimage.color import rgb2gray
from skimage.filters import threshold_otsu
from skimage.measure import label, regionprops
from skimage.segmentation import clear_border

from penstock import Runtime
from penstock.annotate import Picture, rle

rt = Runtime("manifest.yml")


@rt.command("things")
def things(image: Picture, least: int = 20, whole: bool = True) -> dict[str, object]:
    """Return what has at least so many pixels; with ``whole``, only what does not touch the border."""
    grey = rgb2gray(image.array())
    if grey.min() == grey.max():
        return {"regions": []}
    bright = grey > threshold_otsu(grey)
    parts = label(clear_border(bright) if whole else bright)
    found = []
    for part in regionprops(parts):
        if part.area >= least:
            mask = np.asarray(parts == part.label)
            found.append({"label": "thing", "rle": rle.encode(mask).as_json()})
    return {"regions": found}
