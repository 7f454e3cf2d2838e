"""Output nodes show their result on themselves, both node renderers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import looks
import pytest

from dit_acceleration_pack.acceleration.quality.words import WORDS

pytestmark = [pytest.mark.server, pytest.mark.browser]


@pytest.fixture(scope="module", params=looks.MOSTLY_CANVAS)
def seen(request: pytest.FixtureRequest, on_the_demo: Callable[..., Any]) -> Any:
    """What the nodes of the demo show after a run."""
    return on_the_demo("results", request.param, seed=700 + request.param[0])


def test_compare_quality_says_it_in_words_and_shows_both_pictures(seen: Any) -> None:
    node = seen["nodes"]["AccelCompareQuality"]
    words, _, figures = node["first"].partition("; ")
    assert words.lower() in WORDS and figures.startswith("1 image: PSNR")
    assert node["slider"] == [256, 256]
    assert len(node["drawings"]) == 1, "a heat map, and no curve of one dot"


def test_the_report_shows_its_text_and_plot(seen: Any) -> None:
    node = seen["nodes"]["AccelReport"]
    assert node["first"].startswith("Cache-DiT: skipped ") and "computed" in node["text"]
    assert node["drawings"] == [880] and node["slider"] == []


def test_save_config_says_where_the_file_is(seen: Any) -> None:
    node = seen["nodes"]["AccelSaveConfig"]
    assert "user/acceleration" in node["first"]
    assert "residual_diff_threshold: 0.24" in node["text"], "the file's content"


def test_all_of_it_can_be_seen(seen: Any) -> None:
    assert [node["hidden"] for node in seen["nodes"].values()] == [0] * 5
    assert [node["below"] for node in seen["nodes"].values()] == [0] * 5
    assert all(width > 0 for node in seen["nodes"].values() for width in node["drawings"])


def test_calibrate_shows_what_it_measured_and_the_fit(seen: Any) -> None:
    node = seen["nodes"]["AccelCalibrateTeaCache"]
    assert node["first"].startswith("TeaCache coefficients for this") and node["drawings"] == [720]
    assert "rel_l1_thresh" in node["text"]


def test_attention_backend_shows_who_computed_how_many_calls(seen: Any) -> None:
    node = seen["nodes"]["AccelAttentionBackend"]
    assert "Attention Backend (sdpa_math)" in node["text"]
    (bar,) = node["bars"]
    assert bar.split()[0] == "sdpa_math" and int(bar.split()[-1]) > 12


def test_nothing_of_it_is_in_the_workflow_or_the_prompt(seen: Any) -> None:
    assert seen["prompt"] == seen["promptAfter"]
    assert seen["nodes"]["AccelCompareQuality"]["values"] == [0, 0, 0]
    assert seen["savedAfter"] == seen["savedBefore"]


def test_the_page_logs_no_error(seen: Any) -> None:
    assert seen["errors"] == []
