"""The help pages in the page's docked panel: nothing is wider than the panel."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from comfyui_environment import ROOT

pytestmark = [pytest.mark.server, pytest.mark.browser]

PAGES = sorted(path.stem for path in (ROOT / "web" / "docs").glob("*.md"))
WIDTH = 250
LOOKS = [
    {"theme": theme, "locale": locale}
    for theme, locale in (("dark", "en"), ("light", "en"), ("dark", "zh"), ("light", "ja"))
]


@pytest.fixture(scope="module")
def seen(scenario: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Every page in every look."""
    folder = Path(os.environ.get("DIT_ACCEL_SCREENSHOTS") or tmp_path_factory.mktemp("help"))
    folder.mkdir(parents=True, exist_ok=True)
    return scenario("help", looks=LOOKS, width=WIDTH, folder=str(folder))


def test_every_node_has_its_page_in_every_language(seen: Any) -> None:
    for look in LOOKS:
        pages = [page for page in seen["pages"] if page | look == page]
        assert sorted(page["type"] for page in pages) == PAGES
        for page in pages:
            name = page["type"] if look["locale"] == "en" else f"{page['type']}/{look['locale']}"
            text = (ROOT / "web" / "docs" / f"{name}.md").read_text(encoding="utf-8")
            assert page["heading"] == text.splitlines()[0].removeprefix("# ")


def test_nothing_is_wider_than_the_panel(seen: Any) -> None:
    assert {page["width"] for page in seen["pages"]} == {WIDTH}
    wide = {
        f"{page['type']}, {page['locale']}": page["wide"] for page in seen["pages"] if page["wide"]
    }
    assert wide == {}


def test_pictures_are_there_and_no_markdown_is_left(seen: Any) -> None:
    for page in seen["pages"]:
        assert all(page["pictures"]), page["type"]
        assert "<!--" not in page["text"] and "](" not in page["text"], page["type"]


def test_the_page_logs_no_error(seen: Any) -> None:
    assert seen["errors"] == []
