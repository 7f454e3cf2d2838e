"""Our nodes are found by the words that people type into the front end's search."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.server, pytest.mark.browser]

PERFORMANCE, ATTENTION = "AccelPerformanceMode", "AccelAttentionBackend"
FIRST = 5
GENERAL = ("faster", "speed", "fast", "slow", "optimize", "加速", "高速化")
"""Words of somebody who knows no technique: there is one answer, and it stands first."""
RIGHT = {
    **{key: {PERFORMANCE} for key in (*GENERAL, "time", "vram", "memory")},
    "fp8": {ATTENTION, "AccelQuantize"},
    "sage": {ATTENTION},
    "flash": {ATTENTION},
    "cache": {"AccelApplyCacheDiT", "AccelApplyTeaCache"},
    "teacache": {"AccelApplyTeaCache"},
    "quality": {"AccelCompareQuality"},
    "compare": {"AccelCompareQuality"},
    "profile": {"AccelProfile"},
}


@pytest.fixture(scope="module")
def seen(scenario: Callable[..., Any]) -> Any:
    return scenario("search", words=list(RIGHT), typed="faster", first=FIRST)


@pytest.mark.parametrize("word", RIGHT)
def test_the_right_node_is_among_the_first(seen: Any, word: str) -> None:
    found = seen["found"][word]
    assert len(found) <= FIRST and RIGHT[word] & set(found), found


@pytest.mark.parametrize("word", GENERAL)
def test_general_words_find_performance_mode_first(seen: Any, word: str) -> None:
    assert seen["found"][word][0] == PERFORMANCE


def test_a_name_holds_words_only_where_aliases_do_not_do(seen: Any) -> None:
    """The search ranks by names; a front end that ranks by aliases as well needs no brackets."""
    words = seen["bracketed"]
    assert {"speed", "sage"} <= set(words) <= set(RIGHT)
    for word in words:
        found = seen["withoutBrackets"][word][: 1 if word in GENERAL else FIRST]
        assert not RIGHT[word] & set(found), word


def test_the_search_box_adds_it_under_its_short_title(seen: Any) -> None:
    assert seen["title"] == "Performance Mode"
    assert seen["errors"] == []
