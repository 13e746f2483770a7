"""What Label Studio exports as JSON of tasks with videos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from penstock.annotate.formats.label_studio_video import KIND
from penstock.annotate.formats.reading import read_json
from penstock.annotate.keyframes import Values, parse_reduction
from penstock.annotate.review.films import Film, Key, Trail
from penstock.annotate.review.given import Drawn
from penstock.annotate.review.reading_label_studio import rectangle_in

_PLACE = ("x", "y", "width", "height", "rotation")


def read_label_studio_video(path: Path) -> Iterator[Film]:
    """Yield the videos that somebody annotated; of several annotations of one, what the last says.

    Raises:
        Unreadable: It is no JSON.
        ValueError: It is no file of this kind; also ``KeyError``, ``TypeError``.
    """
    for task in read_json(path.parent, path.name):
        made = [one for one in task.get("annotations") or () if not one.get("was_cancelled")]
        if not made:
            continue
        facts = task["data"]
        results = [one for one in made[-1]["result"] if one["type"] == KIND]
        yield Film(str(facts.get("source") or facts["video"]), _size(results), tuple(map(_trail, results)))


def _size(results: list[dict[str, Any]]) -> tuple[int, int]:
    sizes = ((one["original_width"], one["original_height"]) for one in results if "original_width" in one)
    return next(sizes, (0, 0))


def _trail(result: dict[str, Any]) -> Trail:
    value, meta = result["value"], result.get("meta") or {}
    tolerance = _first(meta.get("tolerance"))
    track = _first(meta.get("track"))
    like = Drawn(
        None if track else result["id"],
        str(value["labels"][0]),
        (0.0, 0.0, 0.0, 0.0),
        track=track or f"label-studio-{result['id']}",
        tolerance=parse_reduction(tolerance) if tolerance else None,
        coarse=True,
    )
    return Trail([_key(one, like) for one in sorted(value["sequence"], key=lambda one: one["frame"])], _draw)


def _first(told: Any) -> str | None:
    """Return what is told of a region beside its place, which is a list, or by now a text."""
    return str(told[0] if isinstance(told, list) else told) if told else None


def _key(one: dict[str, Any], like: Drawn) -> Key:
    # With ``auto`` it was interpolated when it was exported.
    drawn = like._replace(region=None, src="interpolated") if one.get("auto") else like
    values = tuple(float(one.get(name) or 0) for name in _PLACE)
    return Key(one["frame"] - 1, drawn, one.get("enabled", True), values)


def _draw(values: Values, like: Drawn, size: tuple[int, int]) -> Drawn:
    made = rectangle_in(dict(zip(_PLACE, values, strict=True)), size, like.region, like.label)
    return like._replace(box=made.box, obb=made.obb)
