"""What other tools make of what was written: each reads it in a process of its own, if it is installed.

The pictures need not be there.  A tool that ends its process, prints or takes for ever does no harm.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from penstock.annotate.errors import ConfigError
from penstock.annotate.formats.base import Fault
from penstock.annotate.formats.coco import FILE as COCO
from penstock.annotate.formats.coco import RESULTS
from penstock.annotate.formats.datumaro import FILE as DATUMARO
from penstock.annotate.formats.label_studio import CONFIG
from penstock.annotate.formats.label_studio import FILE as TASKS
from penstock.annotate.formats.reading import read_json, read_lines

SECONDS = 600
_MARK = "penstock:"  # before the one line that counts of what the process prints
_SHOWN = 20  # faults

Reader: TypeAlias = Callable[[Path], Iterator[str]]


class Tool(NamedTuple):
    """A package: the module it is known by, and the formats it reads; readers yield what is wrong."""

    module: str
    reads: Mapping[str, Reader]


def tools_named(names: Sequence[str]) -> list[str]:
    """Return tools by their names.

    Raises:
        ConfigError: One is not known, or not installed.
    """
    for name in names:
        if name not in TOOLS:
            raise ConfigError(f"there is no reader {name}; there are {', '.join(TOOLS)}")
        if find_spec(TOOLS[name].module.partition(".")[0]) is None:
            raise ConfigError(f"{name} is not installed: pip install {name}")
    return list(names)


def check_with(tool: str, name: str, folder: Path, *, timeout_s: float = SECONDS) -> list[Fault] | None:
    """Return what a tool finds wrong with what stands in a folder; None if it does not read the format.

    Args:
        tool: Its name.
        name: The format's.
        folder: Where it stands.
        timeout_s: How long it may take, in seconds.
    """
    if name not in TOOLS[tool].reads:
        return None
    command = [sys.executable, "-W", "ignore", "-m", __name__, tool, name, str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return [Fault(tool, "", f"it was not done after {timeout_s:g} s")]
    said = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if not said:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return [Fault(tool, "", f"its process ended with code {done.returncode}: {last}")]
    return [Fault(tool, "", what) for what in json.loads(said[-1][len(_MARK) :])]


# -- readers -------------------------------------------------------------------------------------------


def _counted(found: int, written: int, what: str) -> Iterator[str]:
    if found != written:
        yield f"it finds {found} {what}; {written} are written"


def _pycocotools(folder: Path) -> Iterator[str]:
    written = read_json(folder, COCO)["annotations"]
    coco = import_module("pycocotools.coco").COCO(str(folder / COCO))
    yield from _counted(len(coco.anns), len(written), "annotations")
    for one in written:
        area = int(coco.annToMask(one).sum())
        if isinstance(one["segmentation"], dict) and area != one["area"]:
            yield f"annotation {one['id']} covers {area} pixels there; {one['area']} are written"


def _pycocotools_results(folder: Path) -> Iterator[str]:
    written = read_json(folder, RESULTS)
    if written:  # it takes no list of nothing
        found = import_module("pycocotools.coco").COCO(str(folder / COCO)).loadRes(str(folder / RESULTS))
        yield from _counted(len(found.anns), len(written), "results")


def _datumaro(folder: Path, kind: str) -> list[Any]:
    data = import_module("datumaro").Dataset.import_from(str(folder), kind)
    return [one for item in data for one in item.annotations]


def _datumaro_own(folder: Path) -> Iterator[str]:
    written = sum(len(item["annotations"]) for item in read_json(folder, DATUMARO)["items"])
    yield from _counted(len(_datumaro(folder, "datumaro")), written, "annotations")


def _datumaro_coco(folder: Path) -> Iterator[str]:
    written = len(read_json(folder, COCO)["annotations"])
    with TemporaryDirectory(prefix="penstock-") as place:
        # It wants a folder for pictures, though nothing in it.
        (Path(place) / "images" / "train").mkdir(parents=True)
        (Path(place) / COCO).parent.mkdir()
        shutil.copy(folder / COCO, Path(place) / COCO)
        found = {one.group for one in _datumaro(Path(place), "coco") if one.type.name != "label"}
    yield from _counted(len(found), written, "annotations")


def _datumaro_mot(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("seqinfo.ini")):
        written = len(read_lines(path.parent, "gt/gt.txt"))
        yield from _counted(len(_datumaro(path.parent, "mot_seq")), written, f"boxes of {path.parent.name}")


def _motmetrics(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("gt.txt")):
        if written := len(read_lines(path.parent, path.name)):
            found = import_module("motmetrics").io.loadtxt(str(path), fmt="mot16")
            yield from _counted(len(found), written, f"boxes of {path.parent.parent.name}")


def _label_studio(folder: Path) -> Iterator[str]:
    module = import_module("label_studio_sdk.label_interface")
    config = module.LabelInterface((folder / CONFIG).read_text(encoding="utf-8"))
    for place, task in enumerate(read_json(folder, TASKS)):
        for given in (*task.get("predictions", ()), *task.get("annotations", ())):
            whole = {"model_version": "m", "score": 0.0, **given}
            found = config.validate_prediction(whole, return_errors=True)
            yield from (f"task {place}: {what}" for what in found)


TOOLS: Mapping[str, Tool] = MappingProxyType(
    {
        "pycocotools": Tool(
            "pycocotools",
            {"coco": _pycocotools, "coco-rle": _pycocotools, "coco-results": _pycocotools_results},
        ),
        "datumaro": Tool(
            "datumaro",
            {
                "datumaro": _datumaro_own,
                "coco": _datumaro_coco,
                "coco-rle": _datumaro_coco,
                "mot": _datumaro_mot,
            },
        ),
        "label-studio-sdk": Tool(
            "label_studio_sdk", {"label-studio": _label_studio, "label-studio-video": _label_studio}
        ),
        "motmetrics": Tool("motmetrics", {"mot": _motmetrics}),
    }
)


def main(tool: str, name: str, folder: str) -> None:
    """Read a folder with a tool, and print what is wrong."""
    found: list[str] = []
    try:
        for what in TOOLS[tool].reads[name](Path(folder)):
            found.append(what)
            if len(found) == _SHOWN:
                break
    except Exception as error:  # noqa: BLE001 - the top of a process; tools raise whatever they like
        why = error.__cause__ or error
        found.append(f"it fails: {type(why).__name__}: {why}")
    sys.stdout.write(f"\n{_MARK}{json.dumps(found)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
