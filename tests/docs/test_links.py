"""Links between the papers lead somewhere, and the JSON of README.md is true."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from docs.pages import DOCS, ROOT, fences
from penstock.protocol.messages import decode_frame
from penstock.protocol.requests import read_message

README = ROOT / "README.md"
PAGES = (*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md")))
LINK = re.compile(r"\[[^\]]+\]\(([^)#\s]*)(#[^)\s]+)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        if target.startswith(("http:", "https:")):
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), target
        assert not anchor or anchor[1:] in _anchors(path), f"{target}{anchor}"


def _anchors(path: Path) -> set[str]:
    """Return the anchors that headings have on code hosts."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_leads_to_every_page() -> None:
    reached, ahead = {README}, [README]
    while ahead:
        page = ahead.pop()
        for target, _ in LINK.findall(page.read_text(encoding="utf-8")):
            path = (page.parent / target).resolve()
            if path.suffix == ".md" and path not in reached:
                reached.add(path)
                ahead.append(path)
    assert [page.name for page in DOCS.glob("*.md") if page not in reached] == []


def test_the_home_of_the_site_leads_to_every_page() -> None:
    home = DOCS / "index.md"
    linked = {target for target, _ in LINK.findall(home.read_text(encoding="utf-8"))}
    assert [page.name for page in DOCS.glob("*.md") if page.name not in linked and page != home] == []


def test_the_json_of_the_readme_is_of_the_protocol() -> None:
    lines = [line for fence in fences(README) if fence.info == "json" for line in fence.body.splitlines()]
    assert lines
    for line in lines:
        if "status" in json.loads(line):
            assert decode_frame(line).seq is not None
        else:
            read_message(line)
