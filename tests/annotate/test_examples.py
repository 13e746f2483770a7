"""The detectors of examples/annotate, on real pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

from annotate import films
from penstock.annotate import Frame, Model, Refining, Settings, Tracking, annotate, rle
from penstock.annotate.shapes.raster import rasterise
from penstock.compose import local_model

pytestmark = pytest.mark.anyio
pytest.importorskip("skimage")

EXAMPLES = Path(__file__).parents[2] / "examples" / "annotate"


async def annotated(project: str, command: str, source: Path, out: Path, **fields: Any) -> list[Frame]:
    window = fields.pop("window", 4)
    settings = Settings(models=(Model(command=command),), **fields)
    with anyio.fail_after(60):
        model = local_model(EXAMPLES / project)
        async with annotate(source, model, settings, out=out, window=window) as frames:
            return [frame async for frame in frames]


def picture(path: Path, pixels: Any) -> Path:
    from PIL import Image

    Image.fromarray(pixels).save(path)
    return path


async def test_a_face_is_found(tmp_path: Path) -> None:
    from skimage import data

    (frame,) = await annotated("faces", "faces", picture(tmp_path / "a.png", data.astronaut()), tmp_path)
    (region,) = frame.regions
    x1, y1, x2, y2 = region.box
    assert (150 < x1 < 200, 50 < y1 < 90, 80 < x2 - x1 < 120, 80 < y2 - y1 < 120) == (True,) * 4


async def test_coins_are_found_as_masks_and_exact_polygons(tmp_path: Path) -> None:
    from skimage import data

    coins = data.coins()
    source = picture(tmp_path / "coins.png", coins)
    (frame,) = await annotated(
        "masks", "things", source, tmp_path, refining=Refining(polygons=True, min_area=100)
    )
    assert 15 <= len(frame.regions) <= 30
    holes = 0
    for region in frame.regions:
        assert region.rle is not None
        assert region.polys is not None
        mask = rle.decode(rle.read({"size": list(region.rle.size), "counts": region.rle.counts}))
        assert np.array_equal(rasterise(region.polys, frame.h, frame.w), mask)
        holes += sum(len(part) - 1 for part in region.polys)
    assert holes > 0


async def test_what_moves_is_found_and_followed(tmp_path: Path) -> None:
    def pictures() -> Any:
        still = np.full((120, 160, 3), 90, dtype=np.uint8)
        for number in range(40):
            shown = still.copy()
            shown[40:72, 8 + 2 * number : 40 + 2 * number] = 250
            yield shown

    path = films.write(tmp_path / "a.mp4", 40, pictures=pictures(), options={"preset": "ultrafast"})
    found = await annotated("motion", "moving", path, tmp_path, window=1, tracking=Tracking())
    seen = [frame for frame in found if any(region.box[2] > 8 + 2 * frame.frame for region in frame.regions)]
    assert len(seen) > 30
    assert "t1" in {region.track for frame in found for region in frame.regions}
