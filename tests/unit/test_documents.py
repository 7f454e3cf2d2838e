"""The documents: short where that was promised, complete, and without a dead link."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

from comfyui_environment import ROOT

FOLDERS = (".", "docs", "web/docs", "benchmarks", "benchmarks/check_models", "workflows/demo")
DOCUMENTS = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.md"))
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+?)\s*$", re.MULTILINE)
MOST_LINES = 150


def prose(path: Path) -> str:
    """A document without its code blocks."""
    return FENCE.sub("", path.read_text(encoding="utf-8"))


@cache
def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a document."""
    found: dict[str, int] = {}
    names = set()
    for heading in HEADING.findall(prose(path)):
        heading = re.sub(r"\]\([^)]*\)", "]", heading)
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        count = found.get(slug, 0)
        found[slug] = count + 1
        names.add(f"{slug}-{count}" if count else slug)
    return names


def dead_links(path: Path, root: Path = ROOT) -> list[str]:
    """Relative links of a document whose file or heading is not there, or not below the root."""
    found = []
    for link in LINK.findall(CODE.sub("", prose(path))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = unquote(link).partition("#")
        target = (path.parent / name).resolve() if name else path
        there = target.exists() and target.is_relative_to(root)
        if not there or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    assert dead_links(path) == []


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "other.md").write_text("# One `name`, two\n## Twice\n## Twice\n", encoding="utf-8")
    page = tmp_path / "docs" / "page.md"
    good = (
        "[](#here) [](../other.md#one-name-two) [](../other.md#twice-1) [](https://x.y/z) `[](e)`"
    )
    bad = "[](#there) [](none.md) [](../other.md#two) [](../../outside.md)"
    page.write_text(f"# Here\n{good} {bad}\n```\n[](f.md)\n# There\n```\n", encoding="utf-8")
    (tmp_path.parent / "outside.md").touch()
    assert dead_links(page, tmp_path) == [
        "#there",
        "none.md",
        "../other.md#two",
        "../../outside.md",
    ]


def test_every_page_is_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        links = [unquote(link).split("#")[0] for link in LINK.findall(prose(page))]
        waiting += [(page.parent / link).resolve() for link in links if "://" not in link and link]
    assert set(DOCUMENTS) <= reached


def test_the_readme_is_read_in_three_minutes() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_the_readme_has_a_row_for_every_node() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[([^\]]+)\]\(web/docs/(\w+)\.md\) \| .+ \|$", text, re.MULTILINE)
    pages = sorted((ROOT / "web" / "docs").glob("*.md"))
    titles = {
        page.stem: page.read_text("utf-8").splitlines()[0].removeprefix("# ") for page in pages
    }
    assert {name: title for title, name in rows} == titles and len(rows) == len(titles)
