"""Regions drawn into a picture: each label has its colour, the same everywhere."""

from __future__ import annotations

from collections.abc import Iterable
from colorsys import hsv_to_rgb
from hashlib import sha256
from typing import TYPE_CHECKING, TypeAlias

from penstock.annotate.extras import needed
from penstock.annotate.formats.geometry import is_line, is_plain, polys_of
from penstock.annotate.records import Frame, Region
from penstock.annotate.shapes.kinds import rectangle

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

    Xy: TypeAlias = list[tuple[float, float]]

Colour: TypeAlias = tuple[int, int, int]

_FILL = 64  # of 255
_LINES = 300  # a picture this high has lines of a pixel
_TEXT = 12  # pixels of text for a line of one


def colour_of(label: str) -> Colour:
    """Return the colour of a label: bright, and hardly that of another."""
    digest = sha256(label.encode()).digest()
    red, green, blue = hsv_to_rgb(digest[0] / 256, 0.75 + digest[1] / 1024, 1.0)
    return (round(red * 255), round(green * 255), round(blue * 255))


def draw(image: Image, frame: Frame) -> Image:
    """Return a picture with what was found in it; shapes are scaled if it is not of the frame's size."""
    images, drawing = needed("PIL.Image", "a drawing"), needed("PIL.ImageDraw", "a drawing")
    across, down = image.width / frame.w, image.height / frame.h
    thick = max(2, round(image.height / _LINES))
    veil = images.new("RGBA", image.size)
    pens = drawing.Draw(veil), drawing.Draw(image)
    for region in frame.regions:
        _fill(pens[0], region, across, down)
    image.paste(veil, mask=veil)
    for region in frame.regions:
        _outline(pens[1], region, across, down, thick)
    for region in frame.regions:
        _caption(pens[1], region, (region.box[0] * across, region.box[1] * down), thick)
    text = ", ".join(_said(tag.label, tag.score, None) for tag in frame.labels)
    if text:
        _write(pens[1], text, (0, 0), (255, 255, 255), thick)
    return image


def _fill(pen: ImageDraw, region: Region, across: float, down: float) -> None:
    """Fill the parts of a shape, and take its holes out again."""
    if is_plain(region):
        return
    for part in polys_of(region):
        pen.polygon(_scaled(part[0], across, down), fill=(*colour_of(region.label), _FILL))
        for hole in part[1:]:
            pen.polygon(_scaled(hole, across, down), fill=(0, 0, 0, 0))


def _outline(pen: ImageDraw, region: Region, across: float, down: float, thick: int) -> None:
    colour = colour_of(region.label)
    polys = ((rectangle(region.box),),) if is_plain(region) else polys_of(region)
    for part in () if is_line(region) else polys:
        for ring in part:
            points = _scaled(ring, across, down)
            pen.line([*points, points[0], points[1]], fill=colour, width=thick, joint="curve")
    for line in region.lines or ():
        pen.line(_scaled(line, across, down), fill=colour, width=thick, joint="curve")
    for x, y, v in region.kp or ():
        if v:
            at, size = (x * across, y * down), 2 * thick
            place = (at[0] - size, at[1] - size, at[0] + size, at[1] + size)
            pen.ellipse(place, fill=colour if v > 1 else None, outline=colour, width=thick)


def _scaled(ring: Iterable[tuple[float, float]], across: float, down: float) -> Xy:
    # A picture's own coordinates are those of the centres of its pixels.
    return [(x * across - 0.5, y * down - 0.5) for x, y in ring]


def _said(label: str, score: float | None, track: str | None) -> str:
    parts = (label, None if score is None else f"{score:.2f}", None if track is None else f"#{track}")
    return " ".join(part for part in parts if part is not None)


def _caption(pen: ImageDraw, region: Region, place: tuple[float, float], thick: int) -> None:
    _write(pen, _said(region.label, region.score, region.track), place, colour_of(region.label), thick)


def _write(pen: ImageDraw, text: str, place: tuple[float, float], colour: Colour, thick: int) -> None:
    """Write a text on its colour, above a place if there is room, else below."""
    font = needed("PIL.ImageFont", "a drawing").load_default(_TEXT * thick / 2 + 2)
    line = " ".join(text.split())
    left, top, right, bottom = pen.textbbox((0, 0), line, font=font)
    at = (place[0], place[1] - bottom if place[1] >= bottom else place[1] + thick)
    pen.rectangle((at[0], at[1] + top, at[0] + right - left + 2, at[1] + bottom), fill=colour)
    dark = sum(colour) > 3 * 128
    pen.text((at[0] + 1, at[1]), line, font=font, fill=(0, 0, 0) if dark else (255, 255, 255))
