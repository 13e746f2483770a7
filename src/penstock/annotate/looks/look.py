"""All that there is to look at, of a log and the files it is about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from penstock.annotate.errors import ConfigError, MediaError
from penstock.annotate.formats.registry import dataset_of
from penstock.annotate.looks.film import write_overlays
from penstock.annotate.looks.page import write_page
from penstock.annotate.looks.sheet import write_sheet
from penstock.annotate.media.messages import Limits
from penstock.annotate.media.sources import find

LOOKS = ("sheet", "overlay", "page")


async def write_looks(
    log_path: Path, sources: Sequence[str], looks: Iterable[str], folder: Path
) -> list[Path]:
    """Write a contact sheet, films and images with what was found drawn in, or a page for a browser.

    Args:
        log_path: The log.
        sources: The files it is about, said as they were when they were annotated.
        looks: Some of ``LOOKS``.
        folder: Where to.

    Raises:
        ConfigError: There is no such look, or what it needs is not installed.
        MediaError: A file cannot be read, is not the one that was annotated, or none of them is in the log.
        OSError: Something cannot be written.
    """
    chosen = list(dict.fromkeys(looks))
    if unknown := [name for name in chosen if name not in LOOKS]:
        raise ConfigError(f"there is no look {', '.join(unknown)}; there are {', '.join(LOOKS)}")
    data = dataset_of(log_path)
    media = [one for one in find(sources, folder / "media", Limits()) if one.name in data.sources]
    if not media:
        raise MediaError(f"none of these files is in {log_path}, where there are {', '.join(data.sources)}")
    written: list[Path] = []
    if "sheet" in chosen:
        written.append(await write_sheet(data, media, folder / "sheet.png"))
    if "overlay" in chosen:
        written += await write_overlays(data, media, folder / "overlay")
    if "page" in chosen:
        written.append(await write_page(data, media, folder / "page.html"))
    return written
