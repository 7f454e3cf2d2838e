"""What the check models were trained on, and the benchmark of plans that reports on them."""

from __future__ import annotations

import json
from types import ModuleType

import pytest
import torch

from comfyui_environment import ROOT
from dit_acceleration_pack.acceleration.policies.planned import FEWEST_COMPUTED

FOLDER = ROOT / "benchmarks" / "check_models"


@pytest.fixture
def scenes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    import scenes

    return scenes


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import plans

    return plans


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "tables"))
    import plan_tables

    return plan_tables


def drawn(scenes: ModuleType, canvas: str, seed: int = 1) -> torch.Tensor:
    where = getattr(scenes, canvas)
    labels = torch.arange(32) % len(where.prompts)
    return scenes.draw(where, labels, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("canvas", ["PICTURE", "VIDEO"])
def test_a_seed_fixes_a_scene_and_a_latent_holds_it(scenes: ModuleType, canvas: str) -> None:
    scene = drawn(scenes, canvas)
    assert torch.equal(scene, drawn(scenes, canvas))
    assert not torch.equal(scene, drawn(scenes, canvas, seed=2))
    latent = scenes.to_latent(scene)
    assert latent.shape[1:] == getattr(scenes, canvas).shape()
    assert torch.allclose(scenes.to_scene(latent), scene.clamp(0, 1), atol=1e-4)
    assert 0.7 < latent.std() < 1.3 and latent.mean().abs() < 0.2


@pytest.mark.parametrize("canvas", ["PICTURE", "VIDEO"])
def test_the_smaller_latent_is_what_progressive_resolution_makes_of_the_larger(
    scenes: ModuleType, canvas: str
) -> None:
    from dit_acceleration_pack.acceleration.progressive import Corner

    side = getattr(scenes, canvas).side
    latent = scenes.to_latent(drawn(scenes, canvas))
    corner = Corner((side, side), (side // 2, side // 2))
    assert torch.allclose(scenes.smaller(latent, side // 2), corner.low_pass(latent), atol=1e-5)


def test_power_falls_about_as_in_photographs(scenes: ModuleType) -> None:
    """FLUX.1's latents of photographs fall with 1.9, Wan 2.1's of videos with 2.4."""
    from dit_acceleration_pack.acceleration.progressive import fit

    assert 1.8 < fit(scenes.to_latent(drawn(scenes, "PICTURE"))).beta < 3.0


def test_prompts_are_told_apart(scenes: ModuleType) -> None:
    texts = [scenes.PICTURE.tokens(p) for p in (*scenes.PICTURE.prompts, scenes.UNCONDITIONAL)]
    flat = torch.nn.functional.normalize(torch.cat(texts).flatten(1), dim=1)
    assert (flat @ flat.T - torch.eye(len(flat))).abs().max() < 0.25


def test_simple_spreads_compute_so_many_steps(plans: ModuleType) -> None:
    assert plans.uniform([1.0] * 9, 3) == {0, 4, 8}
    assert plans.by_length([1.0] * 9, 3) == {0, 4, 8}
    # The first steps are long: more of the computed ones lie there.
    assert plans.by_length([8.0, 8.0, 1.0, 1.0, 1.0, 1.0], 4) == {0, 1, 2, 5}
    for choose in plans.SPREADS.values():
        for count in range(2, 28):
            chosen = choose([1.3**-i for i in range(28)], count)
            assert len(chosen) == count and {0, 27} <= chosen


def test_the_worst_fall_is_found(tables: ModuleType) -> None:
    curve = {n: {"count": n, "psnr": value} for n, value in ((6, 30.0), (7, 33.0), (8, 31.5))}
    assert tables.worst_fall(curve) == (1.5, "7 → 8")
    flat = {n: {"count": n, "psnr": 32.0} for n in (6, 7, 9)}
    assert tables.over(flat, curve) == "+0.5"
    assert tables.behind(flat, [curve]) == "7"


def test_presets_skip_as_much_of_eight_steps_as_was_worth_it() -> None:
    """With one evaluation less than the fewest, caching gains little over plain steps."""
    rows = json.loads((ROOT / "benchmarks" / "results" / "few_steps.json").read_text("utf-8"))
    near = {(row["way"], row.get("count")): row.get("psnr") for row in rows["rows"]}
    gain = {count: near["plan", count] - near["plain", count] for count in (4, 5, 6, 7)}
    assert min(count for count, won in gain.items() if won > 10) == FEWEST_COMPUTED
