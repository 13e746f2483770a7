"""All formats, and the one way from a log to files in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from penstock.annotate.errors import ConfigError
from penstock.annotate.formats.base import Fault, Format, Written
from penstock.annotate.formats.between import with_between
from penstock.annotate.formats.coco import Coco, CocoResults, CocoRle
from penstock.annotate.formats.corrected import read_corrected
from penstock.annotate.formats.cvat import CvatImages
from penstock.annotate.formats.cvat_video import CvatVideo
from penstock.annotate.formats.dataset import Dataset
from penstock.annotate.formats.datumaro import Datumaro
from penstock.annotate.formats.label_studio import LabelStudio
from penstock.annotate.formats.label_studio_video import LabelStudioVideo
from penstock.annotate.formats.labelme import LabelMe
from penstock.annotate.formats.mot import Mot
from penstock.annotate.formats.supervisely import Supervisely
from penstock.annotate.formats.table import Table
from penstock.annotate.formats.voc import Voc
from penstock.annotate.formats.webvtt import WebVtt
from penstock.annotate.formats.yolo import YoloDetection, YoloPose, YoloRotated, YoloSegmentation
from penstock.annotate.keyframes import Reduction
from penstock.annotate.manifests import MANIFEST, load
from penstock.annotate.records import Frame

_ALL: tuple[Format, ...] = (
    Coco(),
    CocoRle(),
    CocoResults(),
    YoloDetection(),
    YoloSegmentation(),
    YoloRotated(),
    YoloPose(),
    Voc(),
    CvatImages(),
    CvatVideo(),
    LabelStudio(),
    LabelStudioVideo(),
    Datumaro(),
    LabelMe(),
    Supervisely(),
    Mot(),
    WebVtt(),
    Table(),
)
FORMATS: Mapping[str, Format] = {one.name: one for one in _ALL}


class Exported(NamedTuple):
    """What became of one format: where it stands, what was written, and what its check found."""

    name: str
    folder: Path
    written: Written
    faults: Sequence[Fault]


class Report(NamedTuple):
    """What became of all formats."""

    formats: Sequence[Exported]

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong with what was written."""
        return not any(one.faults for one in self.formats)

    def lines(self) -> Iterator[str]:
        """Yield the report as people read it."""
        for name, folder, written, faults in self.formats:
            yield f"{name}: {written.frames} frames, {written.regions} regions in {folder}"
            yield from (f"  {count} {what}" for what, count in written.losses.items())
            yield from (f"  wrong: {fault}" for fault in faults)


def formats_named(names: Iterable[str]) -> list[Format]:
    """Return formats by their names.

    Raises:
        ConfigError: There is no format of a name.
    """
    names = list(dict.fromkeys(names))
    if unknown := [name for name in names if name not in FORMATS]:
        raise ConfigError(f"there is no format {', '.join(unknown)}; there are {', '.join(FORMATS)}")
    return [FORMATS[name] for name in names]


def export(
    log_path: Path,
    formats: Iterable[str],
    directory: Path,
    *,
    reduction: Reduction | None = None,
    between: bool = False,
) -> Report:
    """Write a log in some formats, each in a folder of its name, and check what was written.

    A log that is still being written can be exported too: as far as it goes.  What people corrected stands in
    for what the model said.

    Args:
        log_path: The log; its manifest, and corrections, are looked for beside it.
        formats: Names of formats.
        directory: Where to; files that are there are overwritten.
        reduction: What formats that have key frames may leave to interpolation; None: nothing.
        between: Whether what is followed is written in the frames between those that were looked at, too.

    Raises:
        ConfigError: There is no format of a name, or what it needs is not installed.
        OSError: The log cannot be read, or something cannot be written.
    """
    return export_data(dataset_of(log_path, reduction, between), formats, directory)


def export_data(data: Dataset, formats: Iterable[str], directory: Path) -> Report:
    """Write a data set in some formats; see ``export``."""
    return Report([_export(one, data, directory / one.name) for one in formats_named(formats)])


def dataset_of(log_path: Path, reduction: Reduction | None = None, between: bool = False) -> Dataset:
    """Return a log as a data set, with what is known from the manifest beside it; see ``export``."""

    def frames() -> Iterator[Frame]:
        found = read_corrected(log_path)
        return with_between(found) if between else found

    manifest = load(log_path.with_name(MANIFEST))
    if manifest is None:
        return Dataset(frames, reduction=reduction)
    known = " ".join(part for part in (manifest.model.get("name"), manifest.model.get("version")) if part)
    model = known or manifest.command
    return Dataset(frames, manifest.sources, model, reduction)


def _export(one: Format, data: Dataset, folder: Path) -> Exported:
    written = one.write(data, folder)
    return Exported(one.name, folder, written, one.check(folder))
