"""Pascal VOC: an XML file for each image, its boxes in whole pixels counted from 1, both ends included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from math import ceil, floor
from pathlib import Path
from xml.etree import ElementTree

from penstock.annotate.formats.base import Fault, Format
from penstock.annotate.formats.dataset import Dataset, Shot
from penstock.annotate.formats.reading import Unreadable, read_lines, read_xml
from penstock.annotate.formats.writing import Xml, clean, one_line, opened
from penstock.annotate.records import Box

ANNOTATIONS = "Annotations"
NAMES = "ImageSets/Main/train.txt"
LABELS = "labelmap.txt"
_BOX = ("xmin", "ymin", "xmax", "ymax")


class Voc(Format):
    """Boxes of whole pixels."""

    name = "voc"
    says = frozenset[str]()

    def produce(self, data: Dataset, folder: Path, losses: Counter[str]) -> Iterable[Path]:
        with opened(folder / NAMES) as names:
            for shot in data.shots():
                path = folder / ANNOTATIONS / f"{shot.flat}.xml"
                with opened(path) as file:
                    _write(Xml(file), shot)
                whole = (one == floor(one) for region in shot.regions for one in shot.clipped(region.box))
                losses["numbers of boxes rounded to whole pixels, outwards"] += sum(not one for one in whole)
                changed = sum(region.label != _plain(region.label) for region in shot.regions)
                losses["labels in which colons, line ends or control characters were replaced"] += changed
                names.write(f"{shot.flat}\n")
                yield path
        yield folder / NAMES
        with opened(folder / LABELS) as file:
            file.write("# label:color_rgb:parts:actions\n")
            file.writelines(f"{_plain(label)}:::\n" for label in ("background", *data.survey.labels))
        yield folder / LABELS

    def faults(self, folder: Path) -> Iterator[Fault]:
        try:
            names = read_lines(folder, NAMES)
            labels = [line.split(":")[0] for line in read_lines(folder, LABELS) if line[:1] != "#"]
        except Unreadable as unreadable:
            yield unreadable.fault
            return
        if len(set(names)) != len(names):
            yield Fault(NAMES, "", "a name stands twice")
        for name in names:
            path = f"{ANNOTATIONS}/{name}.xml"
            try:
                root = read_xml(folder, path)
            except Unreadable as unreadable:
                yield unreadable.fault
                continue
            yield from (Fault(path, where, what) for where, what in _document_faults(root, name, set(labels)))

    def picture(self, shot: Shot) -> str:
        return f"JPEGImages/{shot.flat_name}"


def one_based(box: Box) -> tuple[int, int, int, int]:
    """Return the pixels a box touches: first and last column and row, the first of the image being 1."""
    left, top, right, bottom = box
    return (floor(left) + 1, floor(top) + 1, ceil(right), ceil(bottom))


def _write(xml: Xml, shot: Shot) -> None:
    with xml.inside("annotation"):
        xml.leaf("folder", "JPEGImages")
        xml.leaf("filename", shot.flat_name)
        with xml.inside("source"):
            xml.leaf("database", "Unknown")
        with xml.inside("size"):
            for key, value in (("width", shot.frame.w), ("height", shot.frame.h), ("depth", 3)):
                xml.leaf(key, value)
        xml.leaf("segmented", 0)
        for region in shot.regions:
            with xml.inside("object"):
                facts = {"name": _plain(region.label), "pose": "Unspecified", "truncated": 0, "difficult": 0}
                for key, fact in facts.items():
                    xml.leaf(key, fact)
                with xml.inside("bndbox"):
                    for key, edge in zip(_BOX, one_based(shot.clipped(region.box)), strict=True):
                        xml.leaf(key, edge)


def _plain(label: str) -> str:
    """Return a label as it can stand in a line of a map, and in XML."""
    plain = clean(one_line(label)).replace(":", "_")
    return f"_{plain[1:]}" if plain[:1] == "#" else plain  # which would begin a comment


def _document_faults(root: ElementTree.Element, name: str, labels: set[str]) -> Iterator[tuple[str, str]]:
    if (root.findtext("filename") or "").rpartition(".")[0] != name:
        yield "filename", "it is not the file's that lists it"
    size = [_whole(root.findtext(f"size/{key}")) for key in ("width", "height", "depth")]
    if None in size or min(one or 0 for one in size) < 1:
        yield "size", "width, height and depth should be whole numbers from 1 on"
        return
    for number, thing in enumerate(root.iterfind("object"), 1):
        where = f"object {number}"
        if thing.findtext("name") not in labels - {"background"}:
            yield where, f"there is no label {thing.findtext('name')!r}"
        if {thing.findtext("difficult"), thing.findtext("truncated")} - {"0", "1"}:
            yield where, "difficult and truncated should be 0 or 1"
        edges = [_whole(thing.findtext(f"bndbox/{key}")) for key in _BOX]
        if any(edge is None for edge in edges):
            yield where, "the edges of its box should be whole numbers"
            continue
        left, top, right, bottom = (edge or 0 for edge in edges)
        if not (1 <= left <= right <= (size[0] or 0) and 1 <= top <= bottom <= (size[1] or 0)):
            yield (
                where,
                "its box should lie in the image, counted from 1, with its last pixels not before its first",
            )


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None
