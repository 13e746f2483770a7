"""`penstock annotate`: what a command detects in images and video, as a log that can be resumed."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock.cli.exits import Exit, fail
from penstock.cli.inputs import read_inputs

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE", help="A file, folder, pattern, http(s) URL or camera; - is standard input."
    ),
]
ModelAddress = Annotated[
    str, typer.Option("--model", envvar="PENSTOCK_URL", help="A server's URL, or a project to run here.")
]
Commands = Annotated[
    list[str], typer.Option("--command", help="What is asked about each frame; several are put together.")
]
Params = Annotated[
    list[str] | None, typer.Option("--param", help="More of its input: name=text, name:=json or name=@file.")
]
Answer = Annotated[
    str,
    typer.Option(help="How it answers, such as items=faces,boxes=xywh,constant=face; see docs/annotate.md."),
]
Image = Annotated[str, typer.Option(help="The parameter that takes the frame.")]
Send = Annotated[str, typer.Option(help="How a frame travels: raw, png, jpeg or jpeg:QUALITY.")]
Plain = Annotated[bool, typer.Option("--plain", help="Send the picture alone, as base64.")]
Clarifai = Annotated[
    bool,
    typer.Option(
        "--clarifai", help="The command is a method of a Clarifai model, which gives regions and concepts."
    ),
]
Batch = Annotated[
    int | None,
    typer.Option(help="Give the command a list of so many frames; it answers with a list as long."),
]
Out = Annotated[Path, typer.Option(help="The folder of the log and the manifest.")]
Every = Annotated[int | None, typer.Option(help="Look at each so manyth frame.")]
Fps = Annotated[str | None, typer.Option(help="Look at so many frames per second, by time.")]
Keyframes = Annotated[bool, typer.Option("--keyframes", help="Look at frames that are stored whole.")]
Scenes = Annotated[bool, typer.Option("--scenes", help="Look at the first frame of each scene.")]
SceneChange = Annotated[
    float | None, typer.Option(help="Grey levels (of 255) by which a scene differs from the one before (12).")
]
Frames = Annotated[str | None, typer.Option(help="Look at these frames: numbers from 0, with commas.")]
Begin = Annotated[str | None, typer.Option(help="Seconds at which to begin.")]
End = Annotated[str | None, typer.Option(help="Seconds before which to end.")]
Limit = Annotated[int | None, typer.Option(help="Look at so many frames of each file.")]
Refine = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="What is kept, as YAML; see docs/annotate.md."),
]
MinScore = Annotated[float | None, typer.Option(help="Keep regions that are at least so sure.")]
Overlaps = Annotated[
    str | None, typer.Option(help="Of several regions for one thing: nms, soft, merge or fuse.")
]
Iou = Annotated[float | None, typer.Option(help="Above which two regions are for one thing (0.5).")]
Polygons = Annotated[bool, typer.Option("--polygons", help="Give masks their exact polygons, too.")]
Track = Annotated[bool, typer.Option("--track", help="Follow objects from frame to frame.")]
Fill = Annotated[
    float | None, typer.Option(help="With --track: fill in objects that go unseen for up to so many seconds.")
]
OnError = Annotated[str, typer.Option(help="Frames that the command fails on: fail or skip.")]
Tries = Annotated[
    int, typer.Option(help="Ask about a frame so many times in all, if the command fails on it.")
]
Window = Annotated[int, typer.Option(help="Frames under way at once.")]
Threads = Annotated[int, typer.Option(help="Threads that decode.")]
Live = Annotated[
    bool,
    typer.Option("--live", help="Read the source as it comes; drop frames that come faster than answers."),
]
Backlog = Annotated[int, typer.Option(help="Frames of a live source that may wait to be looked at.")]
Timeout = Annotated[float | None, typer.Option(help="Give each call so many seconds.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with what is in --out; that is done anyway.")]
Restart = Annotated[bool, typer.Option("--restart", help="Delete what is in --out, and begin anew.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show which frames would be looked at; ask nobody.")]
Export = Annotated[
    str | None,
    typer.Option(help="Then write it in these formats: names with commas; see docs/annotations.md."),
]
Overlay = Annotated[bool, typer.Option("--overlay", help="Then draw what was found into videos and images.")]
Json = Annotated[bool, typer.Option("--json", help="Print the lines of the log as they are written.")]


def annotate(
    sources: Sources,
    model: ModelAddress = "http://127.0.0.1:8000",
    command: Commands = [],  # noqa: B006 - typer makes a new one each time
    param: Params = None,
    answer: Answer = "",
    image: Image = "image",
    send: Send = "raw",
    plain: Plain = False,
    clarifai: Clarifai = False,
    batch: Batch = None,
    out: Out = Path("annotations"),
    every: Every = None,
    fps: Fps = None,
    keyframes: Keyframes = False,
    scenes: Scenes = False,
    scene_change: SceneChange = None,
    frames: Frames = None,
    begin: Begin = None,
    end: End = None,
    limit: Limit = None,
    refine: Refine = None,
    min_score: MinScore = None,
    overlaps: Overlaps = None,
    iou: Iou = None,
    polygons: Polygons = False,
    track: Track = False,
    fill: Fill = None,
    on_error: OnError = "fail",
    tries: Tries = 1,
    window: Window = 4,
    threads: Threads = 1,
    live: Live = False,
    backlog: Backlog = 8,
    timeout: Timeout = None,
    resume: Resume = False,
    restart: Restart = False,
    dry_run: DryRun = False,
    export: Export = None,
    overlay: Overlay = False,
    json: Json = False,
) -> None:
    """Annotate images and video with what a command detects in them; Ctrl-C ends it, the same again goes on.

    penstock annotate film.mp4 --model examples/annotate/faces --command faces --fps 2
    """
    _annotate(**locals())


def _annotate(
    *,
    sources: list[str],
    model: str,
    out: Path,
    window: int,
    threads: int,
    live: bool,
    backlog: int,
    timeout: float | None,
    resume: bool,
    restart: bool,
    dry_run: bool,
    export: str | None,
    overlay: bool,
    json: bool,
    **given: Any,
) -> None:
    from penstock.annotate.formats.registry import formats_named
    from penstock.annotate.media.feeds import is_live
    from penstock.cli.annotating import Asked, run
    from penstock.cli.annotations import make_exports, make_looks
    from penstock.errors import ConnectionFailed, PenstockError

    if resume and restart:
        fail("--resume and --restart cannot be combined", Exit.USAGE)
    if overlay and (live or any(map(is_live, sources))):
        fail("nothing is kept of a live source that could be drawn into; leave --overlay out", Exit.USAGE)
    given["params"] = read_inputs(given.pop("param") or ())
    options = {"out": out, "restart": restart, "window": window, "threads": threads, "timeout_s": timeout}
    options |= {"live": live, "backlog": backlog}
    formats = export.split(",") if export else []
    try:
        formats_named(formats)
        run(sources, model, Asked(**given), options, dry=dry_run, as_json=json)
        # Standard output is for the lines of the log.
        with redirect_stdout(sys.stderr):
            if formats and not dry_run:
                make_exports(out, formats)
            if overlay and not dry_run:
                make_looks(out, sources, ["overlay"])
    except ConnectionFailed as error:
        fail(error.message, Exit.NO_SERVER)
    except ValueError as error:
        fail(str(error), Exit.USAGE)
    except (PenstockError, OSError) as error:
        fail(str(error))
