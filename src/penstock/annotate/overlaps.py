"""Several regions for one thing: the best is kept, or they are made one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec

from penstock.annotate.answers import Found
from penstock.annotate.records import Box

Way: TypeAlias = Literal["nms", "soft", "merge", "fuse"]

SOFT_LEAST = 0.001  # a score that soft suppression brings below this is none


def iou(one: Box, other: Box) -> float:
    """Return what two boxes share of all that they cover; 0.0 if they cover nothing."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (_area(one) + _area(other) - shared)


def resolve(found: Sequence[Found], way: Way, most: float, *, by_class: bool, models: int = 1) -> list[Found]:
    """Return regions of which no two mean the same thing; each has a box.

    Args:
        found: In any order; the answer is in their order.
        way: Keep the best of each cluster; lower the scores of the others by what they share with it; give it
            the box around all of them; or the mean of their boxes, weighted by their scores.
        most: The IoU above which two are a cluster.
        by_class: Only regions with the same label can be.
        models: How many models were asked: a fused region that only some of them found has a lower score.
    """
    order = sorted(range(len(found)), key=lambda at: (-_score(found[at]), at))
    if way == "soft":
        return _softened(found, order, most, by_class)
    clusters: list[list[int]] = []
    for at in order:
        one = found[at]
        for cluster in clusters:
            head = found[cluster[0]]
            if (not by_class or head.label == one.label) and iou(_box(head), _box(one)) > most:
                cluster.append(at)
                break
        else:
            clusters.append([at])
    clusters.sort(key=lambda cluster: cluster[0])
    return [_one([found[at] for at in cluster], way, models) for cluster in clusters]


def _one(cluster: list[Found], way: Way, models: int) -> Found:
    best = cluster[0]
    # A box made of several says nothing about shapes: these are those of the best.
    shapes = (best.polys, best.lines, best.mask, best.obb)
    if way == "nms" or any(shape is not None for shape in shapes):
        return best
    boxes = [_box(one) for one in cluster]
    if way == "merge":
        xs, ys, far_xs, far_ys = zip(*boxes, strict=True)
        return msgspec.structs.replace(best, box=(min(xs), min(ys), max(far_xs), max(far_ys)))
    weights = [_score(one) for one in cluster]
    total = sum(weights)
    if not total:
        return best
    a, b, c, d = (
        sum(w * box[side] for w, box in zip(weights, boxes, strict=True)) / total for side in range(4)
    )
    score = total / len(cluster) * min(len({one.model for one in cluster}), models) / models
    return msgspec.structs.replace(best, box=(a, b, c, d), score=None if best.score is None else score)


def _softened(found: Sequence[Found], order: list[int], most: float, by_class: bool) -> list[Found]:
    left = {at: _score(found[at]) for at in order}
    scores: dict[int, float] = {}
    while left:
        at = min(left, key=lambda one: (-left[one], one))
        scores[at] = left.pop(at)
        for other in list(left):
            if by_class and found[other].label != found[at].label:
                continue
            shared = iou(_box(found[at]), _box(found[other]))
            if shared > most:
                left[other] *= 1 - shared
                if left[other] < SOFT_LEAST:
                    del left[other]
    return [
        found[at] if scores[at] == _score(found[at]) else msgspec.structs.replace(found[at], score=scores[at])
        for at in sorted(scores)
    ]


def _score(found: Found) -> float:
    return 1.0 if found.score is None else found.score


def _box(found: Found) -> Box:
    assert found.box is not None
    return found.box


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
