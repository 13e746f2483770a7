"""Frames of a log as annotations in Clarifai's form."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence

from clarifai_grpc.grpc.api import resources_pb2
from clarifai_grpc.grpc.api.status import status_code_pb2 as codes
from clarifai_grpc.grpc.api.status import status_pb2

from penstock.annotate import rle
from penstock.annotate.clarifai.answers import REGION
from penstock.annotate.clarifai.tasks import Task
from penstock.annotate.extras import needed
from penstock.annotate.records import Frame, Region, Ring, Tag
from penstock.annotate.shapes.cutting import hole_free

Annotation = resources_pb2.Annotation

_SCORE = "prediction_score"
_UNSEEN = 0  # visibility of keypoints that are not labelled
_ID = 32  # hex digits


def time_ms(frame: Frame) -> int:
    """Return the time of a frame, in whole milliseconds from the first."""
    return round(frame.seconds * 1000)


def annotations_of(frame: Frame, task: Task) -> list[Annotation]:
    """Return what was found in a frame: an annotation for each region, and one for the tags of each status.

    A polygon of several parts, or with holes, becomes several annotations, as Clarifai's has one ring.  Ids
    are the same for the same thing, so that nothing that is sent twice is there twice.
    """
    found = [_whole(frame, task, tags) for tags in _by_status(frame, task)]
    for regions in _by_place(frame, task):
        found += _of_place(frame, task, regions)
    return found


# -- what belongs together -----------------------------------------------------------------------------


def _by_place(frame: Frame, task: Task) -> list[list[Region]]:
    """Return the regions of each place that are written alike: they are one, with several concepts."""
    places: dict[object, list[Region]] = {}
    for number, region in enumerate(frame.regions):
        place = region.attrs.get(REGION, f"n{number}")
        key = (place, region.attrs.get("status"), task.types.get(region.label))
        places.setdefault(key, []).append(region)
    return list(places.values())


def _by_status(frame: Frame, task: Task) -> list[list[Tag]]:
    found: dict[str, list[Tag]] = {}
    for tag in frame.labels:
        found.setdefault(task.statuses[tag.label], []).append(tag)
    return list(found.values())


# -- annotations ---------------------------------------------------------------------------------------


def _whole(frame: Frame, task: Task, tags: Sequence[Tag]) -> Annotation:
    concepts = [_concept(tag.label, tag.score, task) for tag in tags]
    status = task.statuses[tags[0].label]
    name = f"{frame.src}:{frame.frame}:{status}"
    return _annotation(frame, task, name, status, resources_pb2.Data(concepts=concepts))


def _of_place(frame: Frame, task: Task, regions: Sequence[Region]) -> Iterator[Annotation]:
    first, status = regions[0], str(regions[0].attrs.get("status", ""))
    concepts = [_concept(region.label, region.score, task) for region in regions]
    scores = [region.score for region in regions if region.score is not None]
    for number, info in enumerate(_infos(frame, task, first)):
        region = resources_pb2.Region(
            id=first.id if not number else f"{first.id}-{number}",
            region_info=info,
            value=max(scores, default=0.0),
            track_id=first.track or "",
            data=resources_pb2.Data(concepts=concepts),
        )
        if first.text:
            region.data.text.raw = first.text
        yield _annotation(frame, task, region.id, status, resources_pb2.Data(regions=[region]))


def _annotation(frame: Frame, task: Task, name: str, status: str, data: resources_pb2.Data) -> Annotation:
    made = Annotation(
        id=hashlib.sha256(f"{task.task_id}:{task.input_id}:{name}".encode()).hexdigest()[:_ID],
        input_id=task.input_id,
        task_id=task.task_id,
        status=status_pb2.Status(code=codes.StatusCode.Value(status or "ANNOTATION_SUCCESS")),
    )
    made.worker.model.model_version.id = task.version_id
    if task.moving:
        at = made.data.frames.add(data=data)
        at.frame_info.time = time_ms(frame)
    else:
        made.data.CopyFrom(data)
    return made


def _concept(label: str, score: float | None, task: Task) -> resources_pb2.Concept:
    """Return a concept as the task has it, and what the model said of it."""
    made = resources_pb2.Concept()
    made.CopyFrom(task.concepts[label])
    if score is not None:
        made.metadata[_SCORE] = score
    return made


# -- shapes --------------------------------------------------------------------------------------------


def _infos(frame: Frame, task: Task, region: Region) -> Iterator[resources_pb2.RegionInfo]:
    """Yield where a region is: all that may be said of it, and each further ring of its polygon."""
    types = task.types.get(region.label, ())
    rings = () if region.polys is None else hole_free(region.polys)
    info = resources_pb2.RegionInfo()
    if not types or "box" in types:
        _fill_box(frame, region, info)
    if rings:
        _fill_polygon(frame, rings[0], info)
    if region.rle is not None:
        info.mask.image.base64 = _picture(region.rle.size, region.rle.counts)
    _fill_points(frame, region, info)
    if region.text and "text" in types:
        info.span.char_end, info.span.raw_text = len(region.text), region.text
    yield info
    for ring in rings[1:]:
        info = resources_pb2.RegionInfo()
        _fill_polygon(frame, ring, info)
        yield info


def _fill_box(frame: Frame, region: Region, info: resources_pb2.RegionInfo) -> None:
    left, top, right, bottom = region.box
    box = info.bounding_box
    box.left_col, box.right_col = _part(left, frame.w), _part(right, frame.w)
    box.top_row, box.bottom_row = _part(top, frame.h), _part(bottom, frame.h)


def _fill_polygon(frame: Frame, ring: Ring, info: resources_pb2.RegionInfo) -> None:
    for x, y in ring:
        info.polygon.points.add(col=_part(x, frame.w), row=_part(y, frame.h))


def _fill_points(frame: Frame, region: Region, info: resources_pb2.RegionInfo) -> None:
    seen = [(x, y) for x, y, v in region.kp or () if v != _UNSEEN]
    for x, y in seen:
        target = info.point if len(seen) == 1 else info.keypoint_locations.add()
        target.col, target.row = _part(x, frame.w), _part(y, frame.h)


def _picture(size: tuple[int, int], counts: str) -> bytes:
    """Return a mask as a PNG of the whole frame, white inside."""
    images, np = needed("PIL.Image", "masks"), needed("numpy", "masks")
    mask = rle.decode(rle.read({"size": list(size), "counts": counts}))
    file = io.BytesIO()
    images.fromarray(mask.astype(np.uint8) * 255).save(file, "PNG")
    return file.getvalue()


def _part(place: float, size: int) -> float:
    return min(max(place / size, 0.0), 1.0)
