"""Several ranks compute what one process does: over gloo, with the host's real classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from split_ranks import run_ranks

from dit_acceleration_pack.acceleration.families import FAMILIES, describe
from dit_acceleration_pack.acceleration.parallel import gather_bytes, keys_bytes, ulysses_bytes

CLOSE = 1e-5
"""Largest difference in float32, relative to the largest value; sums are added up in another
order."""

REFERENCES = {"reference_latents_method": "index_timestep_zero"}
ODD = [16, 6, 10]  # 15 image tokens

FEW: list[dict[str, Any]] = [
    {"family": "flux", "control": True, "cfg": 3.0},
    {"family": "flux2_reference", "conditions": REFERENCES},
    {"family": "chroma", "control": True},
    {"family": "wan22_5b", "frame_times": True, "cfg": 3.0},
    {"family": "qwen_image", "control": True, "text_mask": [1, 1, 1, 0, 0]},
    {"family": "z_image", "batch": 3},
    {"family": "hunyuan_video_i2v", "latent": [16, 3, 6, 10]},
    {"family": "sd3", "latent": ODD, "control": False, "cfg": 3.0},
    {"family": "ltxv", "latent": [128, 3, 3, 5], "frame_times": True},
    {"family": "wan_vace", "cfg": 3.0},
]
MORE: list[dict[str, Any]] = [
    {"family": "flux"},
    {"family": "flux", "latent": ODD, "cfg": 3.0, "control": False},
    {"family": "flux_kontext", "batch": 3},
    {"family": "wan", "latent": [16, 3, 6, 10]},
    {"family": "qwen_image_edit_2511"},
    {"family": "hunyuan_video", "control": True},
    {"family": "hunyuan_video_i2v"},
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
    {"family": "sd3", "control": True, "batch": 3},
    {"family": "ltxv", "cfg": 3.0},
    {"family": "wan_vace", "latent": [16, 3, 8, 8], "frame_times": True},
]

EXCHANGES = ("keys", "ulysses")
# In the quick check every case by one of them, in turn.
ON_TWO = [{**case, "exchange": EXCHANGES[at % 2]} for at, case in enumerate(FEW)]
ON_THREE = [
    {"family": "flux", "exchange": "ulysses", "control": True},  # 2 heads: keys
    {"family": "flux", "exchange": "keys", "latent": ODD},
    {"family": "wan22_5b", "exchange": "keys", "frame_times": True},
    {"family": "qwen_image_edit_2511", "exchange": "keys"},
    {"family": "z_image", "exchange": "ulysses"},  # 8 heads on 3 ranks
    {"family": "hunyuan_video_i2v", "exchange": "keys"},
    {"family": "sd3", "exchange": "ulysses", "control": True},
    {"family": "ltxv", "exchange": "keys"},
    {"family": "wan_vace", "exchange": "ulysses"},
]
MISTAKES: list[dict[str, Any]] = [
    {"family": "flux", "exchange": "keys", "mistake": "rope"},
    {"family": "flux", "exchange": "keys", "control": True, "mistake": "last add"},
    {"family": "qwen_image", "exchange": "keys", "text_mask": [1, 0, 0, 0, 0], "mistake": "mask"},
    {"family": "wan22_5b", "exchange": "keys", "frame_times": True, "mistake": "grain"},
    {"family": "hunyuan_video_i2v", "exchange": "keys", "mistake": "ranges"},
    {"family": "sd3", "exchange": "keys", "control": True, "mistake": "last add"},
    {"family": "sd3", "exchange": "ulysses", "mistake": "joined"},
    {"family": "ltxv", "exchange": "keys", "mistake": "rope"},
    {"family": "ltxv", "exchange": "keys", "frame_times": True, "mistake": "times"},
    {"family": "wan_vace", "exchange": "keys", "mistake": "rope"},
    {"family": "wan_vace", "exchange": "keys", "mistake": "side"},
]


CACHE = {"max_warmup_steps": 2, "residual_diff_threshold": 0.35}
CACHED: list[dict[str, Any]] = [
    {"family": "flux", "exchange": "keys", "steps": 10, "latent": ODD, "cache": CACHE},
    {"family": "wan", "exchange": "ulysses", "steps": 10, "cfg": 3.0, "cache": CACHE},
]
# As the node has it: orders, ranks and reports, but no Ray.
SEQUENCE = {"split": "sequence"}
RUNS: list[dict[str, Any]] = [
    {"family": "flux", "do": "run", "steps": 3, "cfg": 3.0, "control": True, "settings": SEQUENCE},
    {
        "family": "flux",
        "do": "run",
        "steps": 14,
        "settings": SEQUENCE,
        "cache": {"max_warmup_steps": 2, "residual_diff_threshold": 0.8},
        "goes wrong": [8, "memory 1 0"],
    },
    {
        "family": "flux",
        "do": "run",
        "steps": 14,
        "latent": [16, 32, 32],
        "settings": SEQUENCE,
        "planned": 2.4,
        "progressive": {"mode": "custom", "switch_sigma": 0.8, "min_full_steps": 2},
    },
]
MIXED: list[dict[str, Any]] = [
    {"family": "flux", "do": "run", "steps": 3, "cfg": 3.0, "control": True},
    {"family": "flux", "do": "run", "steps": 10, "cfg": 3.0, "cache": CACHE},
    {"family": "wan", "do": "run", "steps": 3, "cfg": 3.0, "settings": {"exchange": "ulysses"}},
]

# A change between that of one rank's tokens and that of all.
BETWEEN = {"max_warmup_steps": 2, "residual_diff_threshold": 0.315}
EACH_FOR_ITSELF = {**CACHED[0], "cache": BETWEEN, "mistake": "each for itself"}
DECIDES_ALONE = {**CACHED[0], "mistake": "decides alone"}
TOO_FEW = {"family": "flux", "exchange": "keys", "latent": [16, 2, 2], "mistake": "none"}


def attention_cases() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for exchange in EXCHANGES:
        base = {"do": "attention", "exchange": exchange, "heads": 3, "text": 3, "image": 6}
        found += [
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
    return found


ATTENTION = attention_cases()


@pytest.fixture(scope="module")
def on_two() -> Iterator[Any]:
    """What two ranks found, by case. One start for all, as it takes longer than they do."""
    cases = [*ON_TWO, *ATTENTION, {"do": "together"}, *CACHED, *RUNS, TOO_FEW, *MISTAKES]
    cases.append(EACH_FOR_ITSELF)
    found = dict(zip(map(str, cases), run_ranks(2, cases), strict=True))
    yield lambda case: found[str(case)]


@pytest.fixture(scope="module")
def on_three() -> Iterator[Any]:
    found = dict(zip(map(str, ON_THREE), run_ranks(3, ON_THREE), strict=True))
    yield lambda case: found[str(case)]


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
    for batch, heads, size, sizes, mask, image in found["attention"]:
        gathered = gather_bytes(batch, heads * size, image, 4)
        keys = case["exchange"] == "keys" or heads < ranks
        if keys:
            expected += keys_bytes(batch, heads * size, sizes, 4)
        else:
            expected += ulysses_bytes(rank, batch, heads, size, sizes, 4)
        calls += 2
        if mask:
            rows = 1
            for length in mask[:-1]:
                rows *= length
            expected += rows * max(sizes) * 4 * (ranks - 1)
            calls += 1
    assert found["attended"] == len(found["attention"])
    assert found["calls"] == calls + found["evaluations"], "one gather an evaluation"
    assert found["bytes"] == expected + gathered * found["evaluations"]


def test_every_described_family_has_a_case() -> None:
    from tiny_models import bare_model

    described = {family.name for family in FAMILIES if family.split}
    names = {case["family"] for case in ON_TWO}
    found = [describe(bare_model(name).diffusion_model) for name in sorted(names)]
    assert {structure.family.name for structure in found if structure is not None} == described


@pytest.mark.parametrize("case", ON_TWO, ids=str)
def test_two_ranks_compute_what_one_process_does(on_two: Any, case: dict[str, Any]) -> None:
    check_exact(on_two(case))
    for rank, found in enumerate(on_two(case)):
        check_counts(rank, found, case, 2)


@pytest.mark.whole
@pytest.mark.parametrize("case", ON_THREE, ids=str)
def test_three_ranks_compute_what_one_process_does(on_three: Any, case: dict[str, Any]) -> None:
    check_exact(on_three(case))
    for rank, found in enumerate(on_three(case)):
        check_counts(rank, found, case, 3)


@pytest.mark.whole
def test_every_variant_of_the_described_families() -> None:
    cases = [{**case, "exchange": e} for case in (*FEW, *MORE) for e in EXCHANGES]
    for case, found in zip(cases, run_ranks(2, cases, limit=1800), strict=True):
        check_exact(found)
        for rank, one in enumerate(found):
            check_counts(rank, one, case, 2)


@pytest.mark.parametrize("case", ATTENTION, ids=str)
def test_attention_alone_by_either_exchange(on_two: Any, case: dict[str, Any]) -> None:
    for rank in on_two(case):
        assert rank["difference"] < 1e-5
        assert rank["calls"] == 2 + ("local_mask" in case)


def test_ranks_decide_together(on_two: Any) -> None:
    for rank in on_two({"do": "together"}):
        assert rank["together"] == pytest.approx(rank["whole"], rel=1e-6)
        assert rank["alone"] != pytest.approx(rank["whole"], rel=1e-2)
        assert rank["agreed"] == [True, False]


def check_cached(found: list[dict[str, Any]], shares: tuple[int, int]) -> None:
    """Decisions are those of one process, and what is kept a rank is no more than its part."""
    longest, of_all = shares
    for rank in found:
        assert rank["skips"] == rank["whole_skips"] and any(rank["skips"])
        peak = rank["peak"] if "peak" in rank else max(rank["residuals"])
        assert 0 < peak * of_all <= rank["whole_peak"] * longest


@pytest.mark.parametrize(
    ("case", "shares"), [*zip(CACHED, [(8, 15), (1, 2)], strict=True)], ids=str
)
def test_caching_over_shared_tokens_decides_as_in_one_process(
    on_two: Any, case: dict[str, Any], shares: tuple[int, int]
) -> None:
    check_exact(on_two(case))
    check_cached(on_two(case), shares)


def test_a_run_of_the_node_tells_who_held_and_sent_what(on_two: Any) -> None:
    for rank in on_two(RUNS[0]):
        assert rank["difference"] <= CLOSE
        assert rank["shared"] == {"tokens over 2": 3}
        assert rank["held"] == [
            "2 of 2 rows, 3 text and 8 image tokens",
            "2 of 2 rows, 2 text and 8 image tokens",
        ]
        assert all(sent > 0 for sent in rank["sent"])


def test_the_node_shows_while_it_runs_who_holds_and_sent_what(on_two: Any) -> None:
    for rank in on_two(RUNS[0]):
        told = rank["told"]
        # After evaluations 1 and 2, and at the end.
        assert [one["outcome"] for one in told] == ["running", "running", "finished"]
        assert {(one["node"], one["technique"], one["steps"]) for one in told} == {
            ("split", "Split Across GPUs", 3)
        }
        for one in told:
            assert [each["rank"] for each in one["ranks"]] == [0, 1]
            assert [each["held"] for each in one["ranks"]] == rank["held"]
            assert all(each["device"] == "cpu" for each in one["ranks"])
            assert all(each["exchanges"] > 0 and each["waited"] > 0 for each in one["ranks"])
        for at, whole in enumerate(rank["sent"]):
            assert [one["ranks"][at]["sent"] * 3 for one in told] == [whole, 2 * whole, 3 * whole]
        assert told[-1]["sentence"].startswith("Split Across GPUs: 3 evaluations on 2 GPUs in ")


def test_one_rank_without_memory_makes_all_compute(on_two: Any) -> None:
    for at, rank in enumerate(on_two(RUNS[1])):
        assert "error" not in rank, rank["error"]
        assert rank["went_wrong"] == (at == 1)
        skips, of_one = rank["skips"], rank["whole_skips"]
        assert len(skips) == 14 and skips[:9] == of_one[:9] and any(skips[:9])
        assert not any(skips[9:]) and any(of_one[9:])
        assert any("memory ran out" in n or "another GPU" in n for n in rank["notices"])


def test_small_evaluations_and_caching_are_planned_together_as_in_one_process(on_two: Any) -> None:
    for rank in on_two(RUNS[2]):
        assert "error" not in rank, rank["error"]
        assert set(rank["sizes"]) == {"16 x 16", "32 x 32"}
        assert rank["skips"] == rank["whole_skips"] and any(rank["skips"])
        assert rank["difference"] <= 10 * CLOSE  # forecasts are made of differences
        told = [note for note in rank["notices"] if "smaller pictures give" in note]
        assert told and told == [n for n in rank["whole_notices"] if "smaller pictures give" in n]


def test_the_caching_node_shows_evaluations_while_they_come(on_two: Any) -> None:
    for rank in on_two(RUNS[2]):
        *running, last = rank["told of caching"]
        assert {one["outcome"] for one in running} == {"running"} and len(running) >= 3
        seen = [len(one["rows"][0]["marks"]) for one in running]
        assert seen == sorted(seen) and seen[0] < 5 and {one["steps"] for one in running} == {14}
        marks = last["rows"][0]["marks"]
        assert last["outcome"] == "finished" and len(marks) == 14
        assert [mark != "c" for mark in marks] == rank["skips"]


def test_weights_of_skipped_blocks_are_not_streamed_in_the_ranks(on_two: Any) -> None:
    for rank in on_two(RUNS[2]):
        assert len(rank["left_out"]) == sum(rank["skips"]) > 0 and all(rank["left_out"])


@pytest.mark.whole
def test_four_ranks_share_prompts_and_each_two_of_them_its_tokens() -> None:
    for case, found in zip(MIXED, run_ranks(4, MIXED), strict=True):
        for rank in found:
            assert "error" not in rank, rank["error"]
            assert rank["difference"] <= CLOSE
            assert set(rank["shared"]) == {"2 rows over 2, tokens over 2 each"}
            assert all(held.startswith("1 of 2 rows, ") for held in rank["held"])
            assert all(sent > 0 for sent in rank["sent"])
        if "cache" in case:
            check_cached(found, (1, 4))


def test_more_ranks_than_tokens_are_one_sentence(on_two: Any) -> None:
    for rank in on_two(TOO_FEW):
        assert "one token, which 2 GPUs cannot share" in rank["error"]


def test_a_rank_that_goes_by_its_own_tokens_is_seen(on_two: Any) -> None:
    for rank in on_two(EACH_FOR_ITSELF):
        assert rank["skips"] != rank["whole_skips"]


@pytest.mark.whole
def test_a_rank_that_decides_alone_is_seen() -> None:
    (found,) = run_ranks(2, [DECIDES_ALONE], may_die=True)
    assert any("error" in rank for rank in found)


@pytest.mark.parametrize("case", MISTAKES, ids=lambda case: f"{case['family']} {case['mistake']}")
def test_a_mistake_made_on_purpose_is_seen(on_two: Any, case: dict[str, Any]) -> None:
    for rank in on_two(case):
        assert "error" in rank or rank["difference"] > 20 * CLOSE
