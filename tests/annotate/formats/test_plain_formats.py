"""Boxes are exported with nothing installed but penstock; what needs more says which extra brings it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys

for name in ("numpy", "PIL", "shapely", "av"):
    sys.modules[name] = None
from pathlib import Path

from penstock.annotate.errors import ConfigError
from penstock.annotate.formats.dataset import Dataset
from penstock.annotate.formats.registry import FORMATS
from penstock.annotate.records import Frame, Region

outside = ((1.0, 1.0), (9.0, 1.0), (9.0, 9.0), (1.0, 9.0))
hole = ((3.0, 3.0), (3.0, 6.0), (6.0, 6.0), (6.0, 3.0))


def frames(**shape):
    known = {"src": "s", "name": "a.mp4", "tb": "1/1", "w": 10, "h": 10}
    for n in range(2):
        place = (1.0, 1.0, 9.0, 9.0)
        box = Region(id=str(n), label="x", score=0.5, box=place, track="t", src="model", **shape)
        yield Frame(frame=n, pts=n, t=str(n), regions=(box,), **known)


for name, one in FORMATS.items():
    one.write(Dataset(frames), Path(name))
    assert one.check(Path(name)) == [], name
try:
    FORMATS["yolo-seg"].write(Dataset(lambda: frames(polys=((outside, hole),))), Path("yolo-seg"))
except ConfigError as error:
    print(error)
"""


def test_boxes_need_no_extra_and_holes_name_theirs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "the cutting of holes cannot be had without the package shapely; install it with: "
        "pip install 'penstock[auto-annotation]'\n"
    )
