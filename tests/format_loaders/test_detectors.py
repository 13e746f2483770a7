"""The detectors of examples/annotate/opencv, held against the truth; OpenCV comes with readers of formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

from annotate import films
from penstock.annotate import Frame, Model, Region, Settings, Tracking, annotate
from penstock.annotate.formats.dataset import Dataset
from penstock.annotate.formats.registry import FORMATS, export
from penstock.annotate.overlaps import iou
from penstock.annotate.records import Box
from penstock.compose import local_model

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]
cv2 = pytest.importorskip("cv2", reason="OpenCV is installed by `make test-formats`")
data = pytest.importorskip("skimage.data", reason="scikit-image is installed by `make test-formats`")

PROJECT = Path(__file__).parents[2] / "examples" / "annotate" / "opencv"


async def annotated(source: Path, out: Path, *commands: str, **fields: Any) -> list[Frame]:
    window = fields.pop("window", 4)
    settings = Settings(models=tuple(Model(command=command) for command in commands), **fields)
    with anyio.fail_after(120):
        async with annotate(source, local_model(PROJECT), settings, out=out, window=window) as frames:
            return [frame async for frame in frames]


def saved(pixels: np.ndarray, path: Path) -> Path:
    from PIL import Image

    Image.fromarray(pixels).save(path)
    return path


def shown(sign: np.ndarray, picture: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Put a sign on a picture by an affine map of the pixels' edges; return where its corners are."""
    height, width = sign.shape
    middle = turn.copy()
    middle[:, 2] += turn[:, :2] @ (0.5, 0.5) - 0.5  # OpenCV's maps are of the centres of pixels
    size = picture.shape[1::-1]
    there = cv2.warpAffine(np.full_like(sign, 255), middle, size)
    seen = cv2.warpAffine(sign, middle, size, flags=cv2.INTER_AREA)
    picture[there > 0] = seen[there > 0, None]
    edges = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]])
    return edges @ turn.T


def marker(number: int, side: int = 140, quiet: int = 20) -> np.ndarray:
    kind = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_4X4_50)
    return np.pad(cv2.aruco.generateImageMarker(kind, number, side), quiet, constant_values=255)


def inner(corners: np.ndarray, quiet: float, side: float) -> np.ndarray:
    """Return the corners of a marker inside its white border."""
    part, middle = side / (side + 2 * quiet), corners.mean(axis=0)
    return middle + (corners - middle) * part


TURNS = (
    np.array([[0.9, -0.25, 60.0], [0.25, 0.9, 40.0]]),
    np.array([[0.7, 0.3, 250.0], [-0.2, 0.8, 280.0]]),
)


async def test_markers_are_where_they_are(tmp_path: Path) -> None:
    picture = data.astronaut()
    truth = {
        str(number): inner(shown(marker(number), picture, turn), 20, 140)
        for number, turn in ((7, TURNS[0]), (23, TURNS[1]))
    }
    (frame,) = await annotated(saved(picture, tmp_path / "a.png"), tmp_path, "markers")
    assert {region.label for region in frame.regions} == set(truth)
    for region in frame.regions:
        assert region.polys is not None
        (ring,) = region.polys[0]
        apart = np.linalg.norm(np.array(ring)[:, None] - truth[region.label][None], axis=2)
        assert apart.min(axis=1).max() < 1.1  # pixels


async def test_markers_are_found_whole_by_evaluation(tmp_path: Path) -> None:
    pycocotools = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval").COCOeval
    picture = data.astronaut()
    rings = {
        str(n): inner(shown(marker(n), picture, turn), 20, 140) for n, turn in ((7, TURNS[0]), (23, TURNS[1]))
    }
    found = await annotated(saved(picture, tmp_path / "a.png"), tmp_path, "markers")
    true = Frame(
        **{
            **{name: getattr(found[0], name) for name in found[0].__struct_fields__},
            "regions": tuple(
                Region(
                    id=name,
                    label=name,
                    box=(*ring.min(axis=0).tolist(), *ring.max(axis=0).tolist()),
                    polys=((tuple(map(tuple, ring.tolist())),),),
                    src="human",
                )
                for name, ring in sorted(rings.items())
            ),
        }
    )
    FORMATS["coco"].write(Dataset(lambda: [true]), tmp_path / "true")
    FORMATS["coco-results"].write(Dataset(lambda: found), tmp_path / "found")
    known = pycocotools.COCO(tmp_path / "true/annotations/instances_train.json")
    for kind in ("bbox", "segm"):
        judged = evaluation(known, known.loadRes(str(tmp_path / "found/results.json")), kind)
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
        assert judged.stats[0] == pytest.approx(1.0), kind


async def test_codes_say_what_they_say(tmp_path: Path) -> None:
    text = "https://example.org/a?b=c"
    code = cv2.resize(
        cv2.QRCodeEncoder.create().encode(text), None, fx=6, fy=6, interpolation=cv2.INTER_NEAREST
    )
    picture = data.astronaut()
    corners = shown(code, picture, np.array([[0.95, -0.1, 80.0], [0.1, 0.95, 120.0]]))
    (frame,) = await annotated(saved(picture, tmp_path / "a.png"), tmp_path, "codes")
    (region,) = frame.regions
    assert (region.label, region.text) == ("qr", text)
    left, top, right, bottom = (*corners.min(axis=0), *corners.max(axis=0))
    assert iou(region.box, (left, top, right, bottom)) > 0.7  # the code without its white border


async def test_a_face_is_found(tmp_path: Path) -> None:
    if not hasattr(cv2, "CascadeClassifier"):
        pytest.skip("this OpenCV has no cascades")
    (frame,) = await annotated(saved(data.astronaut(), tmp_path / "a.png"), tmp_path, "faces")
    assert any(iou(region.box, (177, 66, 274, 163)) > 0.7 for region in frame.regions)


NUMBERS = {"face": 1, "cat": 2}
STILL, FRAMES = 30, 110  # frames nothing moves in, and all


def places(frame: int) -> dict[str, Box]:
    """Return where the face and the cat are; they pass each other, the cat comes in from the right."""
    if frame < STILL:
        return {}
    x = 5.0 + 4 * (frame - STILL)
    return {"face": (x, 20.0, x + 70, 90.0), "cat": (420 - x, 150.0, 490 - x, 230.0)}


def pictures() -> Any:
    ground = np.full((260, 500, 3), 40, np.uint8)
    ground[:, :451] = data.chelsea()[:260] // 3
    patches = {"face": data.astronaut()[70:140, 190:260], "cat": data.chelsea()[90:170, 100:170]}
    for frame in range(FRAMES):
        picture = ground.copy()
        for name, (left, top, right, bottom) in places(frame).items():
            a, b = int(max(left, 0)), int(min(right, 500))
            if a < b:
                patch = np.clip(patches[name].astype(int) + 60, 0, 255).astype(np.uint8)
                picture[int(top) : int(bottom), a:b] = patch[:, a - int(left) : b - int(left)]
        yield picture


async def test_what_moves_is_followed_without_a_fault(tmp_path: Path) -> None:
    mm = pytest.importorskip("motmetrics")
    path = films.write(
        tmp_path / "a.mp4", FRAMES, pictures=pictures(), options={"preset": "ultrafast", "crf": "10"}
    )
    await annotated(path, tmp_path / "out", "moving", window=1, tracking=Tracking())
    assert export(tmp_path / "out" / "annotations.jsonl", ["mot"], tmp_path).is_sound
    found = mm.io.loadtxt(str(tmp_path / "mot/a/gt/gt.txt"), fmt="mot16")
    sums = mm.MOTAccumulator()
    for frame in range(STILL, FRAMES):
        true = {name: box for name, box in places(frame).items() if box[0] >= 0 and box[2] <= 500}
        rows = found.loc[frame + 1] if (frame + 1) in found.index.get_level_values(0) else found.iloc[:0]
        boxes = [(x, y, x + w, y + h) for x, y, w, h in rows[["X", "Y", "Width", "Height"]].to_numpy()]
        # Its own distances need a numpy before 2.
        apart = [
            [1 - iou(one, other) if iou(one, other) >= 0.5 else np.nan for other in boxes]
            for one in true.values()
        ]
        sums.update(
            [NUMBERS[name] for name in true],
            list(rows.index),
            np.array(apart).reshape(len(true), len(boxes)),
            frameid=frame,
        )
    scores = (
        mm.metrics.create().compute(sums, metrics=["mota", "idf1", "num_switches"], name="all").loc["all"]
    )
    assert scores.tolist() == [1.0, 1.0, 0]
