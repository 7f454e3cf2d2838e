"""Several ranks compute what one process does: over gloo, with the host's real classes."""

from __future__ import annotations

from typing import Any

import pytest
from split_ranks import run_ranks

from dit_acceleration_pack.acceleration.parallel import keys_bytes, ulysses_bytes

CLOSE = 1e-5
"""Largest difference in float32, relative to the largest value; sums are added up in another
order."""

REFERENCES = {"reference_latents_method": "index_timestep_zero"}
ODD = [16, 6, 10]  # 15 image tokens

BOTH: list[dict[str, Any]] = [
    {"family": "flux"},
    {"family": "flux", "latent": ODD, "cfg": 3.0, "control": False},
    {"family": "flux", "control": True, "cfg": 3.0},
    {"family": "flux_kontext", "batch": 3},
    {"family": "flux2_reference", "conditions": REFERENCES},
    {"family": "chroma", "control": True},
    {"family": "wan", "latent": [16, 3, 6, 10]},
    {"family": "wan22_5b", "frame_times": True, "cfg": 3.0},
    {"family": "qwen_image", "control": True},
    {"family": "qwen_image_edit_2511"},
    {"family": "z_image"},
    {"family": "hunyuan_video", "control": True},
    {"family": "hunyuan_video_i2v"},
]
MORE: list[dict[str, Any]] = [
    {"family": "flux2", "cfg": 3.0},
    {"family": "flux_fill"},
    {"family": "longcat"},
    {"family": "ovis"},
    {"family": "chroma", "batch": 3, "cfg": 3.0},
    {"family": "wan", "cfg": 3.0, "batch": 3},
    {"family": "wan_i2v"},
    {"family": "wan_flf2v"},
    {"family": "wan_in_context"},
    {"family": "wan_fun_control"},
    {"family": "wan_camera"},
    {"family": "qwen_image", "cfg": 3.0, "batch": 3},
    {"family": "qwen_image_edit"},
    {"family": "qwen_image_layered"},
    {"family": "lumina2", "cfg": 3.0},
    {"family": "z_image_omni"},
    {"family": "hunyuan_video_reference"},
    {"family": "hunyuan_video15"},
    {"family": "hunyuan_image21"},
    {"family": "skyreels_i2v"},
]

ON_TWO = [{**case, "exchange": e} for case in BOTH for e in ("keys", "ulysses")]
ON_THREE = [
    {"family": "flux", "exchange": "ulysses", "latent": ODD, "control": True},  # 2 heads: keys
    {"family": "wan22_5b", "exchange": "keys", "frame_times": True},
    {"family": "qwen_image_edit_2511", "exchange": "keys"},
    {"family": "z_image", "exchange": "ulysses"},  # 8 heads on 3 ranks
    {"family": "hunyuan_video_i2v", "exchange": "keys"},
]


@pytest.fixture(scope="module")
def on_two() -> list[Any]:
    return run_ranks(2, ON_TWO)


@pytest.fixture(scope="module")
def on_three() -> list[Any]:
    return run_ranks(3, ON_THREE)


def check_exact(found: list[dict[str, Any]]) -> None:
    for rank in found:
        assert "error" not in rank, rank["error"]
        assert rank["finite"] and rank["difference"] <= CLOSE
        assert rank["ranks_equal"] and rank["repeats"]
        assert rank["left"] == 0
        assert rank["attended"] > 0


def check_counts(rank: int, found: dict[str, Any], case: dict[str, Any], ranks: int) -> None:
    """Every byte and every exchange is one that a formula knows."""
    expected = calls = 0
    hidden = 0
    for batch, heads, size, sizes, mask in found["attention"]:
        keys = case["exchange"] == "keys" or heads < ranks
        if keys:
            expected += keys_bytes(batch, heads * size, sizes, 4)
        else:
            expected += ulysses_bytes(rank, batch, heads, size, sizes, 4)
        calls += 2
        hidden = heads * size
        if mask:
            rows = 1
            for length in mask[:-1]:
                rows *= length
            expected += rows * max(sizes) * 4 * (ranks - 1)
            calls += 1
    assert found["attended"] == len(found["attention"])
    assert found["calls"] == calls + found["evaluations"], "one gather an evaluation"
    gathered = found["bytes"] - expected
    # The image stream, padded to the longest share.
    assert gathered > 0 and gathered % (hidden * 4 * (ranks - 1) * found["evaluations"]) == 0


@pytest.mark.parametrize("index", range(len(ON_TWO)), ids=lambda i: str(ON_TWO[i]))
def test_two_ranks_compute_what_one_process_does(on_two: list[Any], index: int) -> None:
    check_exact(on_two[index])
    for rank, found in enumerate(on_two[index]):
        check_counts(rank, found, ON_TWO[index], 2)


@pytest.mark.parametrize("index", range(len(ON_THREE)), ids=lambda i: str(ON_THREE[i]))
def test_three_ranks_compute_what_one_process_does(on_three: list[Any], index: int) -> None:
    check_exact(on_three[index])
    for rank, found in enumerate(on_three[index]):
        check_counts(rank, found, ON_THREE[index], 3)


@pytest.mark.whole
def test_every_variant_of_the_described_families() -> None:
    cases = [{**case, "exchange": e} for case in MORE for e in ("keys", "ulysses")]
    for found in run_ranks(2, cases):
        check_exact(found)


def test_attention_alone_by_either_exchange() -> None:
    cases: list[dict[str, Any]] = []
    for exchange in ("keys", "ulysses"):
        base = {"do": "attention", "exchange": exchange, "heads": 3, "text": 3, "image": 6}
        cases += [
            base,
            {**base, "rows": True},
            {**base, "mask": [1, 1, 9]},
            {**base, "mask": [2, 1, 9], "local_mask": True},
            {**base, "mask": [9, 9]},
            {**base, "mask": [2, 9, 9]},
            {**base, "mask": [2, 3, 9, 9]},
            {**base, "mask": [2, 3, 1, 9], "local_mask": True},
            {**base, "text": 1, "image": 2},
        ]
    for case, found in zip(cases, run_ranks(2, cases), strict=True):
        for rank in found:
            assert rank["difference"] < 1e-5, case
            assert rank["calls"] == 2 + ("local_mask" in case), case


def test_ranks_decide_together() -> None:
    for rank in run_ranks(2, [{"do": "together"}])[0]:
        assert rank["together"] == pytest.approx(rank["whole"], rel=1e-6)
        assert rank["alone"] != pytest.approx(rank["whole"], rel=1e-2)
        assert rank["agreed"] == [True, False]


MISTAKES = [
    {"family": "flux", "exchange": "keys", "mistake": "rope"},
    {"family": "flux", "exchange": "keys", "control": True, "mistake": "last add"},
    {"family": "qwen_image", "exchange": "keys", "mistake": "mask"},
    {"family": "wan22_5b", "exchange": "keys", "frame_times": True, "mistake": "grain"},
    {
        "family": "flux2_reference",
        "exchange": "keys",
        "conditions": REFERENCES,
        "mistake": "ranges",
    },
]


def test_mistakes_made_on_purpose_are_seen() -> None:
    for case, found in zip(MISTAKES, run_ranks(2, MISTAKES), strict=True):
        for rank in found:
            assert "error" in rank or rank["difference"] > 100 * CLOSE, case
