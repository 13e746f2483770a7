"""Corrections as Label Studio, CVAT and COCO write them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from penstock.annotate.errors import ConfigError
from penstock.annotate.formats.reading import Unreadable
from penstock.annotate.review.films import Film
from penstock.annotate.review.given import Given
from penstock.annotate.review.reading_coco import read_coco
from penstock.annotate.review.reading_cvat import read_cvat
from penstock.annotate.review.reading_cvat_video import read_cvat_video
from penstock.annotate.review.reading_label_studio import read_label_studio
from penstock.annotate.review.reading_label_studio_video import read_label_studio_video

READERS: Mapping[str, Callable[[Path], Iterator[Given | Film]]] = {
    "label-studio": read_label_studio,
    "label-studio-video": read_label_studio_video,
    "cvat": read_cvat,
    "cvat-video": read_cvat_video,
    "coco": read_coco,
}


def read_given(kind: str, path: Path) -> list[Given | Film]:
    """Read a file of corrections whole, so that nothing is written of one that is broken in its middle.

    Raises:
        ConfigError: There is no reader of that name, or the file is not of that kind; the text says where.
    """
    if kind not in READERS:
        raise ConfigError(f"corrections cannot be read from {kind}; they can from {', '.join(READERS)}")
    try:
        return list(READERS[kind](path))
    except Unreadable as unreadable:
        raise ConfigError(f"{path}: {unreadable.fault.what}") from unreadable
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ConfigError(f"{path} is no file of {kind} that can be read: {_words(error)}") from error


def _words(error: Any) -> str:
    return f"there is no {error}" if isinstance(error, KeyError) else str(error)
