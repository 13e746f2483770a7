"""`penstock annotations`: what is made of a log of annotations, and what people make of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.exits import Exit, fail

if TYPE_CHECKING:
    from penstock.annotate.formats.base import Fault
    from penstock.annotate.formats.registry import Report
    from penstock.annotate.keyframes import Reduction

verbs = typer.Typer(help="Export annotations, look at them, have them reviewed.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="The folder of the log, or the log itself.")]
Formats = Annotated[
    str, typer.Option("--format", help="Names of formats, with commas; see docs/annotate.md.")
]
To = Annotated[Path | None, typer.Option(help="Where to; else a folder beside the log.")]
Sources = Annotated[
    list[str], typer.Argument(metavar="SOURCE", help="The files, said as when they were annotated.")
]
Looks = Annotated[str, typer.Option("--as", help="What to look at: sheet, overlay, page; with commas.")]
Below = Annotated[float, typer.Option(help="Frames in which something is less sure than this.")]
Given = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="What the tool wrote.")]
Kind = Annotated[
    str, typer.Option("--from", help="The tool: label-studio, label-studio-video, cvat, cvat-video or coco.")
]
Between = Annotated[
    bool, typer.Option("--between", help="Also write tracks in the frames between those that were looked at.")
]
Reduce = Annotated[
    str | None,
    typer.Option(help="Key frames in videos: leave out boxes that these give back within px=1 or iou=0.95."),
]
Tools = Annotated[
    str | None,
    typer.Option(
        "--with", help="Have these read it too: pycocotools, datumaro, label-studio-sdk, motmetrics."
    ),
]
Written = Annotated[Path, typer.Argument(exists=True, file_okay=False, help="A folder that was exported.")]


@verbs.command("export")
def export_log(
    folder: Folder, formats: Formats, to: To = None, reduce: Reduce = None, between: Between = False
) -> None:
    """Write a log in the formats of other tools, and check what was written."""
    with _told():
        make_exports(folder, formats.split(","), to, reduce, between=between)


@verbs.command("check")
def check_folder(folder: Written, tools: Tools = None) -> None:
    """Look for what is wrong with exports: folders with the names of formats."""
    from penstock.annotate.formats.others import tools_named
    from penstock.annotate.formats.registry import FORMATS

    with _told():
        asked = tools_named(tools.split(",") if tools else [])
    found = [one for name, one in FORMATS.items() if (folder / name).is_dir()]
    if not found:
        fail(f"{folder} has no folder with the name of a format ({', '.join(FORMATS)})", Exit.USAGE)
    faults = 0
    for one in found:
        faults += _show_faults(one.name, one.check(folder / one.name), "sound")
        faults += _check_with(asked, one.name, folder / one.name)
    if faults:
        raise typer.Exit(Exit.FAILED)


def _show_faults(of: str, wrong: Sequence[Fault], well: str) -> int:
    print(f"{of}: {well if not wrong else f'{len(wrong)} faults'}")
    for fault in wrong:
        print(f"  {fault}")
    return len(wrong)


def _check_with(tools: Sequence[str], name: str, folder: Path) -> int:
    """Have tools read an export, those that can; return how much they find wrong."""
    from penstock.annotate.formats.others import check_with

    found = ((tool, check_with(tool, name, folder)) for tool in tools)
    return sum(
        _show_faults(f"{name}, {tool}", wrong, "reads it") for tool, wrong in found if wrong is not None
    )


@verbs.command("look")
def look_at(folder: Folder, sources: Sources, looks: Looks = "page", to: To = None) -> None:
    """Draw what was found: a contact sheet, films and images, or a page for a browser."""
    with _told():
        make_looks(folder, sources, looks.split(","), to)


@verbs.command("review")
def review_log(
    folder: Folder,
    below: Below,
    formats: Formats = "label-studio",
    to: To = None,
    reduce: Reduce = None,
) -> None:
    """Write the frames that are worth a look, for people to correct."""
    from penstock.annotate.review.review import export_review

    log = _log(folder)
    with _told():
        place, reduction = to or log.parent / "review", _reduction(reduce)
        _show(export_review(log, below, formats.split(","), place, reduction=reduction))


@verbs.command("correct")
def correct_log(folder: Folder, given: Given, kind: Kind) -> None:
    """Read what people corrected, and say how far they agreed; every export from now on has it."""
    from penstock.annotate.review.review import import_corrections

    log = _log(folder)
    with _told():
        for line in import_corrections(log, kind, given).lines():
            print(line)


def make_exports(
    folder: Path,
    formats: list[str],
    to: Path | None = None,
    reduce: str | None = None,
    *,
    between: bool = False,
) -> None:
    """Write a log in some formats, and tell what became of it.

    Raises:
        ConfigError: There is no format of a name, or what it needs is not installed.
        OSError: Something cannot be read or written.
        typer.Exit: The check found something.
    """
    from penstock.annotate.formats.registry import export

    log = _log(folder)
    place = to or log.parent / "exports"
    _show(export(log, formats, place, reduction=_reduction(reduce), between=between))


def _reduction(text: str | None) -> Reduction | None:
    from penstock.annotate.keyframes import parse_reduction

    return None if text is None else parse_reduction(text)


def make_looks(folder: Path, sources: list[str], looks: list[str], to: Path | None = None) -> None:
    """Draw what was found, and tell where it is.

    Raises:
        PenstockError: There is no such look, or a file cannot be read.
        OSError: Something cannot be written.
    """
    import asyncio

    from penstock.annotate.looks.look import write_looks

    log = _log(folder)
    for path in asyncio.run(write_looks(log, sources, looks, to or log.parent / "looks")):
        print(path)


@contextmanager
def _told() -> Iterator[None]:
    from penstock.annotate.errors import ConfigError
    from penstock.errors import PenstockError

    try:
        yield
    except ConfigError as error:
        fail(str(error), Exit.USAGE)
    except (PenstockError, OSError, ValueError) as error:
        fail(str(error))


def _log(folder: Path) -> Path:
    from penstock.annotate.log import LOG

    log = folder / LOG if folder.is_dir() else folder
    if not log.is_file():
        fail(f"{log} is not there; `penstock annotate` writes it", Exit.USAGE)
    return log


def _show(report: Report) -> None:
    for line in report.lines():
        print(line)
    if not report.is_sound:
        raise typer.Exit(Exit.FAILED)
