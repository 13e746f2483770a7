"""A project: finds what OpenCV finds as it is.  It needs opencv-python-headless, and no models to download.

penstock annotate PICTURES --model examples/annotate/opencv --command markers --command codes
penstock annotate FILM --model examples/annotate/opencv --command moving --window 1 --track
"""

from __future__ import annotations

import cv2
import numpy as np

from penstock import CommandError, Runtime
from penstock.annotate import Picture, rle

rt = Runtime("manifest.yml")
backgrounds: dict[str, cv2.BackgroundSubtractor] = {}


def grey(image: Picture) -> np.ndarray:
    """Return a picture as OpenCV's detectors want it."""
    return cv2.cvtColor(image.array(), cv2.COLOR_RGB2GRAY)


def quad(corners: np.ndarray) -> list[object]:
    """Return four corners as a polygon; OpenCV's coordinates are those of the centres of pixels."""
    return [[[[float(x) + 0.5, float(y) + 0.5] for x, y in corners.reshape(4, 2)]]]


@rt.command("markers")
def markers(image: Picture, dictionary: str = "DICT_4X4_50") -> dict[str, object]:
    """Return ArUco markers, the number of each as its label."""
    if not hasattr(cv2.aruco, dictionary):
        raise CommandError(f"there is no dictionary {dictionary!r}", "invalid_argument")
    known = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, dictionary))
    parameters = cv2.aruco.DetectorParameters()
    parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
    corners, ids, _ = cv2.aruco.ArucoDetector(known, parameters).detectMarkers(grey(image))
    found = sorted(
        zip(() if ids is None else ids.ravel().tolist(), corners, strict=True), key=lambda one: one[0]
    )
    return {"regions": [{"label": str(name), "polys": quad(corner)} for name, corner in found]}


@rt.command("codes")
def codes(image: Picture) -> dict[str, object]:
    """Return QR codes, and what they say."""
    there, texts, corners, _ = cv2.QRCodeDetector().detectAndDecodeMulti(grey(image))
    found = sorted(zip(texts, corners, strict=True), key=lambda one: one[0]) if there else []
    return {"regions": [{"label": "qr", "text": text, "polys": quad(corner)} for text, corner in found]}


@rt.command("moving", concurrency=1)
def moving(image: Picture, least: int = 150) -> dict[str, object]:
    """Return what differs from a background that is learned as it goes (MOG2), from so many pixels on."""
    if image.frame == 0 or image.name not in backgrounds:
        backgrounds[image.name] = cv2.createBackgroundSubtractorMOG2(detectShadows=False)
    mask = backgrounds[image.name].apply(image.array())
    closed = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    opened = cv2.morphologyEx(closed, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, parts, facts, _ = cv2.connectedComponentsWithStats(opened)
    kept = [part for part in range(1, count) if facts[part][cv2.CC_STAT_AREA] >= least]
    return {"regions": [{"label": "moving", "rle": rle.encode(parts == part).as_json()} for part in kept]}


@rt.command("faces")
def faces(image: Picture, least: int = 60, neighbours: int = 5) -> dict[str, object]:
    """Return faces from so many pixels on, by Haar's features; OpenCV has these before its version 5."""
    if not hasattr(cv2, "CascadeClassifier"):
        raise CommandError(
            "this OpenCV has no cascades; install opencv-python-headless<5", "failed_precondition"
        )
    cascade = cv2.CascadeClassifier(f"{cv2.data.haarcascades}haarcascade_frontalface_alt2.xml")
    found = cascade.detectMultiScale(grey(image), 1.1, neighbours, minSize=(least, least))
    boxes = sorted([int(one) for one in box] for box in found)
    return {"regions": [{"label": "face", "box": [x, y, x + w, y + h]} for x, y, w, h in boxes]}
