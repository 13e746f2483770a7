"""The page, opened from a disk in a real browser that can reach nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from annotate import films
from pages.chromium import CHROMIUM, open_page
from penstock.annotate.formats.dataset import Dataset
from penstock.annotate.looks.page import write_page
from penstock.annotate.media.messages import Limits
from penstock.annotate.media.sources import find
from penstock.annotate.records import Frame, Region, Tag

pytestmark = pytest.mark.anyio

FRAMES = 20
EVIL = "</script><script>window.evil=1</script><img src=x>"


def frame(number: int, name: str, src: str, scores: tuple[float | None, ...] = (0.25, 0.75, None)) -> Frame:
    labels = ("low", "high", EVIL)
    found = [
        Region(
            id=f"{number}{at}",
            label=label,
            score=score,
            box=(10.0 + 40 * at, 20.0, 40.0 + 40 * at, 60.0),
            src="model",
        )
        for at, (label, score) in enumerate(zip(labels, scores, strict=True))
    ]
    return Frame(
        src=src,
        name=name,
        frame=number,
        pts=number,
        tb="1/10",
        t=f"{number / 10:.1f}",
        w=films.WIDTH,
        h=films.HEIGHT,
        regions=tuple(found[: 1 + number % 3]) if number else tuple(found),
        labels=(Tag("outdoor", 0.5),),
    )


SEEK = """(async (seconds) => {
    const video = document.getElementById('video');
    if (video.readyState < 1) await new Promise(done => video.onloadedmetadata = done);
    const there = new Promise(
        done => video.requestVideoFrameCallback((_, facts) => done(facts.mediaTime)));
    video.currentTime = seconds;
    const time = await there;
    await new Promise(requestAnimationFrame);
    const lines = document.getElementById('regions').children.length;
    return [time, document.getElementById('now').textContent, lines];
})"""
LEAST = """((value, below) => {
    document.getElementById('least').value = value;
    document.getElementById('below').checked = below;
    document.getElementById('least').dispatchEvent(new Event('input'));
    const lines = [...document.getElementById('regions').children].slice(1);
    return lines.map(one => one.textContent.split(' ')[0]);
})"""
PIXEL = """((x, y) => {
    const pen = document.getElementById('canvas').getContext('2d');
    const at = pen.getTransform().transformPoint(new DOMPoint(x, y));
    return [...pen.getImageData(at.x, at.y, 1, 1).data];
})"""
OPEN = """(async (number) => {
    document.getElementById('files').value = number;
    document.getElementById('files').dispatchEvent(new Event('change'));
    await document.getElementById('image').decode();
    return document.getElementById('image').naturalWidth;
})"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)")
async def test_the_page_in_a_browser(tmp_path: Path) -> None:
    films.write(tmp_path / "a.mp4", FRAMES, rate=10)
    Image.new("RGB", (films.WIDTH, films.HEIGHT), (90, 90, 90)).save(tmp_path / "b.png")
    media = find([str(tmp_path / "a.mp4"), str(tmp_path / "b.png")], tmp_path, Limits())
    moments = [frame(number, "a.mp4", media[0].digest) for number in range(0, FRAMES, 5)]
    still = frame(0, "b.png", media[1].digest)
    data = Dataset(lambda: [*moments, still])
    path = await write_page(data, media, tmp_path / "page" / "index.html")
    text = path.read_text()
    assert not [word for word in ("http://", "https://", "//cdn", "@import") if word in text]
    # Whatever it asked for by name would go nowhere.
    nowhere = "--host-resolver-rules=MAP * ~NOTFOUND"
    with open_page(tmp_path / "profile", path.as_uri(), nowhere) as page:
        assert page.evaluate("window.evil") is None
        # Where the last frame looked at is 5, of which three regions are there, and a label.
        time, now, count = page.evaluate(f"{SEEK}(0.72)")
        assert time == pytest.approx(0.7, abs=0.001)
        assert now == "frame 5, 0.5 s"
        assert count == 1 + 3
        assert page.evaluate(f"{SEEK}(0.12)")[1] == "frame 0, 0.0 s"
        assert page.evaluate(f"{LEAST}(0, false)") == [
            "low",
            "high",
            "</script><script>window.evil=1</script><img",
        ]
        assert page.evaluate(f"{LEAST}(0.5, false)")[:1] == ["high"]
        edge = page.evaluate(f"{PIXEL}(10, 40)"), page.evaluate(f"{PIXEL}(50, 40)")
        assert [pixel[3] for pixel in edge] == [0, 255]  # the one below is not drawn
        assert page.evaluate(f"{LEAST}(0.5, true)") == ["low"]
        assert page.evaluate(f"{OPEN}(1)") == films.WIDTH
        asked = page.evaluate("performance.getEntriesByType('resource').map(one => one.name)")
        assert [name for name in asked if not name.startswith("blob:")] == []
