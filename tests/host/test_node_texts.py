"""Every node explains itself: tooltips, a help page, and texts in three languages."""

from __future__ import annotations

import re
from typing import Any

import pytest

import node_texts
from comfyui_environment import ROOT
from comfyui_server import Server
from comfyui_workflow import inputs_of, options_of

pytestmark = [pytest.mark.server]

# What a text of each language must contain, so that a forgotten translation is found.
SCRIPTS = {"zh": re.compile(r"[\u4e00-\u9fff]"), "ja": re.compile(r"[\u3040-\u30ff]")}
TRANSLATED = tuple(SCRIPTS)


@pytest.fixture(scope="module")
def texts(server: Server) -> dict[str, Any]:
    return node_texts.english(server.object_info())


def test_every_input_and_output_has_a_tooltip_or_is_a_plain_hand_through(
    texts: dict[str, Any],
) -> None:
    for kind, node in texts.items():
        assert node["description"], kind
        for name, told in node["inputs"].items():
            assert len(told.get("tooltip", "")) > 10, (kind, name)


def test_nodes_are_listed_under_the_name_of_the_pack(server: Server) -> None:
    """Not under "model", among those of the host."""
    info = server.object_info()
    ours = {kind: node for kind, node in info.items() if kind.startswith("Accel")}
    assert {node["category"] for node in ours.values()} == {"DiT acceleration"}
    assert [kind for kind, node in ours.items() if "`" in node["description"]] == []


def test_the_list_of_kernels_fits_a_small_window(server: Server) -> None:
    """The page does not scroll a tooltip. What cannot run here is said in it."""
    (backend,) = [
        spec for name, spec in inputs_of(server.object_info()["AccelAttentionBackend"])
        if name == "backend"
    ]  # fmt: skip
    tooltip = options_of(backend)["tooltip"]
    assert "Cannot run here: " in tooltip
    assert len(tooltip) < 900


def test_every_node_has_a_help_page_and_every_page_a_node(texts: dict[str, Any]) -> None:
    pages = {path.stem for path in (ROOT / "web" / "docs").glob("*.md")}
    assert pages == set(texts)
    for kind, node in texts.items():
        page = (ROOT / "web" / "docs" / f"{kind}.md").read_text(encoding="utf-8")
        unnamed = [name for name in node["inputs"] if not re.search(rf"\b{name}\b", page)]
        assert unnamed == [], kind


def test_the_lists_of_the_help_pages_are_what_the_schemas_say(server: Server) -> None:
    """If this fails, run ``python3 tests/node_texts.py``."""
    pages = list(node_texts.pages(server.object_info()))
    assert [path.name for path, text in pages if not node_texts.LIST.search(text)] == []
    assert [path.name for path, text in pages if path.read_text("utf-8") != text] == []


def test_english_is_what_the_schemas_say(texts: dict[str, Any]) -> None:
    """If this fails, run ``python3 tests/node_texts.py``."""
    assert node_texts.file_of("en").read_text("utf-8") == node_texts.english_file(texts)


@pytest.mark.parametrize("language", TRANSLATED)
def test_every_node_has_a_help_page_in_other_languages(
    texts: dict[str, Any], language: str
) -> None:
    """The page looks for ``docs/NODE/LANGUAGE.md``, whose markers the list is written between."""
    for kind in texts:
        path = ROOT / "web" / "docs" / kind / f"{language}.md"
        assert path.exists(), path
        text = path.read_text(encoding="utf-8")
        assert SCRIPTS[language].search(text) and node_texts.LIST.search(text), path
        name = node_texts.read(language)[kind]["display_name"].partition("（")[0]
        assert text.splitlines()[0] == f"# {name}"


def test_no_help_page_has_a_table() -> None:
    """The help panel is 250 pixels wide, where a table is a heap of single words."""
    wide = [
        f"{path.relative_to(ROOT)}: {line}"
        for path in sorted((ROOT / "web" / "docs").rglob("*.md"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith("|")
    ]
    assert wide == []


@pytest.mark.parametrize("language", TRANSLATED)
def test_translation_has_every_text_and_none_that_is_stale(
    texts: dict[str, Any], language: str
) -> None:
    wanted, there = node_texts.leaves(texts), node_texts.leaves(node_texts.read(language))
    assert sorted(set(wanted) - set(there)) == []
    assert sorted(set(there) - set(wanted)) == []


@pytest.mark.parametrize("language", TRANSLATED)
def test_translation_is_in_its_language(language: str) -> None:
    places = node_texts.leaves(node_texts.read(language)).items()
    plain = [
        place
        for place, text in places
        if place.endswith(("tooltip", "description")) and not SCRIPTS[language].search(text)
    ]
    assert plain == []


@pytest.mark.parametrize("language", node_texts.LANGUAGES)
def test_no_text_has_a_sign_that_the_page_reads_as_a_command(language: str) -> None:
    places = node_texts.leaves(node_texts.read(language)).items()
    assert [place for place, text in places if set(text) & set(node_texts.SPECIAL)] == []


@pytest.mark.every_host
def test_the_server_gives_the_page_our_texts(server: Server) -> None:
    told = server.get("/i18n")
    for language in node_texts.LANGUAGES:
        for kind, node in node_texts.read(language).items():
            assert told[language]["nodeDefs"][kind] == node
    for language in TRANSLATED:
        assert SCRIPTS["zh"].search(told[language]["nodeCategories"]["DiT acceleration"])
