"""Apply TeaCache and Calibrate TeaCache on real classes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tm
import torch
from demo import shapes
from whole import first

from comfyui_environment import ROOT
from dit_acceleration_pack.acceleration.errors import AccelerationError
from dit_acceleration_pack.acceleration.policies.calibration import LEAST_EXPLAINED

DEMO_MODEL = ROOT / "workflows" / "demo" / "models" / "dit_accel_demo_flux.safetensors"

FAMILIES = ["flux", "flux2", "chroma", "wan"]


def attach(model: Any, find_fit: Any = lambda _: None, **settings: Any) -> Any:
    from dit_acceleration_pack.acceleration import host
    from dit_acceleration_pack.acceleration.policies.tea_cache import TeaCache
    from dit_acceleration_pack.acceleration.settings.caching import TeaCacheSettings

    return host.attach(model, TeaCache(TeaCacheSettings(**settings), find_fit))


def linear_calls(model: Any) -> list[int]:
    """Counts calls of a linear layer in every block after its first input projection."""
    counts: list[int] = []
    network = model.model.diffusion_model
    for name, block in network.named_modules():
        parent, _, last = name.rpartition(".")
        if last.isdigit() and parent in ("double_blocks", "single_blocks", "blocks"):
            # The last linear layer of a block runs only when the block runs to its end.
            inner = [m for m in block.modules() if isinstance(m, torch.nn.Linear)][-1]
            place = len(counts)
            counts.append(0)

            def hook(*_: Any, place: int = place) -> None:
                counts[place] += 1

            inner.register_forward_hook(hook)
    return counts


@pytest.mark.parametrize(
    ("dtype", "cfg"),
    first(itertools.product((torch.bfloat16, torch.float32), (3.0, 1.0))),
)
@pytest.mark.parametrize("name", FAMILIES)
def test_never_skipping_is_bit_identical(name: str, dtype: torch.dtype, cfg: float) -> None:
    model = tm.make_model(name, dtype)
    plain = tm.sample(model, name, steps=6, cfg=cfg, batch=2)
    accelerated = attach(model, rel_l1_thresh=1e-9)
    assert torch.equal(tm.sample(accelerated, name, steps=6, cfg=cfg, batch=2), plain)
    report = tm.report_of(accelerated)
    assert report.computed == 6 and sum(e.diff is not None for e in report.evaluations) == 5


@pytest.mark.parametrize("calibrator", first(["taylorseer", "none", "trajectory"]))
@pytest.mark.parametrize("name", FAMILIES)
def test_skipped_evaluations_run_no_block(name: str, calibrator: str) -> None:
    model = tm.make_model(name)
    plain = tm.sample(model, name, steps=12)
    accelerated = attach(model, coefficients="raw", rel_l1_thresh=3.0, calibrator=calibrator)
    calls = linear_calls(model)
    quick = tm.sample(accelerated, name, steps=12)
    report = tm.report_of(accelerated)
    assert report.skipped >= 4 and calls == [report.computed] * len(calls)
    assert quick.isfinite().all() and not torch.equal(quick, plain)
    assert torch.equal(tm.sample(accelerated, name, steps=12), quick), "run 2 = run 1"


def test_first_and_last_step_and_the_limit() -> None:
    accelerated = attach(
        tm.make_model("flux"), coefficients="raw", rel_l1_thresh=9.0, max_continuous_cached_steps=2
    )
    tm.sample(accelerated, "flux", steps=11)
    skipped = [e.skipped for e in tm.report_of(accelerated).evaluations]
    assert skipped == [False, True, True] * 3 + [False, False]


def test_positive_and_negative_are_separate() -> None:
    model = tm.make_model("flux")
    arguments: dict[str, Any] = {"steps": 10, "cfg": 3.0}
    accelerated = attach(model, coefficients="raw", rel_l1_thresh=0.5)
    with tm.split_batches(model):
        tm.sample(accelerated, "flux", **arguments)
    report = tm.report_of(accelerated)
    assert {b["name"] for b in report.branches()} == {"cond", "uncond"}
    for branch in ("cond", "uncond"):
        diffs = [e.diff for e in report.evaluations if e.branch == branch]
        assert diffs[0] is None and all(d is not None and d < 1 for d in diffs[1:])


def test_the_tap_reads_what_attention_projects() -> None:
    """On FLUX the signal is the first block's modulated, normed input."""
    model = tm.make_model("flux")
    seen: list[torch.Tensor] = []
    layer = model.model.diffusion_model.double_blocks[0].img_attn.qkv
    layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    accelerated = attach(model, rel_l1_thresh=1e-9)
    tm.sample(accelerated, "flux", steps=4)
    changes = [float((b - a).abs().mean() / a.abs().mean()) for a, b in itertools.pairwise(seen)]
    assert [e.diff for e in tm.report_of(accelerated).evaluations][1:] == pytest.approx(changes)


def test_a_hit_at_an_unchanged_input_equals_recomputing() -> None:
    import comfy.sample
    import comfy.samplers

    model = tm.make_model("flux")
    sigmas = torch.tensor([0.9, 0.7, 0.7, 0.4, 0.0])

    def run(patched: Any) -> torch.Tensor:
        with torch.inference_mode():
            empty = torch.zeros(1, *tm.TINY["flux"].latent)
            noise = comfy.sample.prepare_noise(empty, 0)
            sampler = comfy.samplers.sampler_object("euler")
            positive, negative = tm.conditioning("flux", 1), tm.conditioning("flux", 2)
            return comfy.sample.sample_custom(
                patched, noise, 1.0, sampler, sigmas, positive, negative, empty, disable_pbar=True
            )

    accelerated = attach(model, coefficients="raw", rel_l1_thresh=1e-4)
    plain, quick = run(model), run(accelerated)
    assert [e.skipped for e in tm.report_of(accelerated).evaluations] == [False, False, True, False]
    assert (quick - plain).norm() / plain.norm() < 1e-5


def test_the_report_says_which_coefficients() -> None:
    for name, settings, phrase in [
        ("flux", {}, "published coefficients flux"),
        ("flux", {"coefficients": "flux-kontext"}, "published coefficients flux-kontext"),
        ("flux2", {}, "raw change of the input"),
        ("wan", {"coefficients": "custom", "custom_coefficients": "1,0"}, "custom coefficients"),
    ]:
        accelerated = attach(tm.make_model(name), **settings)
        tm.sample(accelerated, name, steps=4)
        assert any(phrase in notice for notice in tm.report_of(accelerated).notices)


def test_coefficients_of_another_family_are_refused() -> None:
    with pytest.raises(AccelerationError, match="'ltxv', which was not made for FLUX"):
        attach(tm.make_model("flux"), coefficients="ltxv")


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Path]]:
    """The calibrations in the host's user folder, which is empty at first."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_user_directory", lambda: str(tmp_path))
    return lambda: list(tmp_path.rglob("teacache_*"))


@pytest.fixture(scope="module")
def trained() -> Any:
    """The demo's FLUX: random weights change alike from step to step, which says nothing."""
    import comfy.sd

    return comfy.sd.load_diffusion_model(str(DEMO_MODEL))


def trained_conditioning(prompt: str) -> list[Any]:
    tokens, pooled = shapes.text_embedding(prompt)
    return [[tokens, {"pooled_output": pooled}]]


def sample_trained(model: Any, seed: int) -> None:
    """20 steps of the demo's FLUX."""
    import comfy.sample

    latent = torch.zeros(1, shapes.LATENT_CHANNELS, shapes.LATENT_SIZE, shapes.LATENT_SIZE)
    with torch.inference_mode():
        comfy.sample.sample(
            model, comfy.sample.prepare_noise(latent, seed), 20, 1.0, "euler", "simple",
            trained_conditioning(shapes.PROMPTS[0]), trained_conditioning(shapes.UNCONDITIONAL),
            latent, disable_pbar=True, seed=seed,
        )  # fmt: skip


def calibrate(model: Any, sampler: str = "euler", seed: int = 1) -> str:
    """As the node does, for 20 steps of the demo's FLUX; its text."""
    from dit_acceleration_pack.nodes.calibrate_tea_cache import CalibrateTeaCache

    size = shapes.LATENT_SIZE
    with torch.inference_mode():
        output = CalibrateTeaCache.execute(
            model,
            positive=trained_conditioning(shapes.PROMPTS[0]),
            negative=trained_conditioning(shapes.UNCONDITIONAL),
            latent_image={"samples": torch.zeros(1, shapes.LATENT_CHANNELS, size, size)},
            seed=seed,
            steps=20,
            cfg=1.0,
            sampler_name=sampler,
            scheduler="simple",
        )
    text: str = output.result[1]
    return text


def test_one_run_calibrates_and_a_standing_calibration_none(
    trained: Any, stored: Callable[[], list[Path]]
) -> None:
    from dit_acceleration_pack.acceleration.policies.cache_dit import CacheDiT
    from dit_acceleration_pack.acceleration.settings.caching import CacheDiTSettings

    evaluations: list[Any] = []
    watched = tm.watch(trained, lambda *a: evaluations.append(a))
    first = calibrate(watched)
    assert len(evaluations) == 20
    data = json.loads(stored()[0].read_text())
    # The same changes as Apply Cache-DiT measures itself, where it skips nothing.
    from dit_acceleration_pack.acceleration import host

    never = host.attach(trained, CacheDiT(CacheDiTSettings(residual_diff_threshold=1e-9)))
    sample_trained(never, seed=1)
    measured = sorted(e.diff for e in tm.report_of(never).evaluations if e.diff is not None)
    # It does not look at its warm-up.
    recorded = data["cache_dit_diffs"]
    assert len(measured) == 16 and len(recorded) == 19
    assert all(any(r == pytest.approx(m, rel=1e-5) for r in recorded) for m in measured)
    assert "threshold of 1e-09" not in first and "raise" not in first

    again = calibrate(watched)
    assert len(evaluations) == 20, "the same settings are not sampled again"
    assert "stands already" in again and again.partition("\n")[0] == first.partition("\n")[0]
    calibrate(watched, seed=2)
    assert len(evaluations) == 40, "another seed measures anew"
    assert json.loads(stored()[0].read_text())["settings"]["seed"] == 2


def test_the_seed_of_a_new_node_stays() -> None:
    """Else the page draws another one after every queue, and an output node runs each time."""
    from dit_acceleration_pack.nodes.calibrate_tea_cache import CalibrateTeaCache

    (seed,) = [i for i in CalibrateTeaCache.define_schema().inputs if i.id == "seed"]
    assert seed.as_dict()["control_after_generate"] == "fixed"


def test_calibrate_then_teacache_finds_it(trained: Any, stored: Callable[[], list[Path]]) -> None:
    from dit_acceleration_pack.acceleration import host

    calibrate(trained)
    assert len(stored()) == 1
    accelerated = attach(trained, host.calibrated_fit)
    sample_trained(accelerated, seed=2)
    report = tm.report_of(accelerated)
    assert any("calibrated on this checkpoint" in notice for notice in report.notices)
    assert 0.2 <= report.skipped / 20 <= 0.6, "the recommended threshold skips about 40 %"
    assert host.calibrated_fit(tm.make_model("flux").model.diffusion_model) is None


def test_noise_is_not_calibrated(trained: Any, stored: Callable[[], list[Path]]) -> None:
    """This sampler draws new noise in every step."""
    with pytest.raises(AccelerationError, match="nothing can be calibrated here"):
        calibrate(trained, "lcm")
    assert stored() == []


def test_tiles_are_told_apart_or_not_calibrated(
    trained: Any, stored: Callable[[], list[Path]]
) -> None:
    """Tiled diffusion: a wrapper calls the model once a quarter of the picture."""

    def quarters(apply_model: Any, given: dict[str, Any]) -> torch.Tensor:
        x, whole = given["input"], torch.zeros_like(given["input"])
        half = shapes.LATENT_SIZE // 2
        for y, z in itertools.product((0, half), repeat=2):
            part = (..., slice(y, y + half), slice(z, z + half))
            whole[part] = apply_model(x[part].contiguous(), given["timestep"], **given["c"])
        return whole

    tiled = trained.clone()
    tiled.set_model_unet_function_wrapper(quarters)
    try:
        calibrate(tiled)
    except AccelerationError as error:
        assert "tiles" in str(error) and stored() == []
    else:
        data = json.loads(stored()[0].read_text())
        assert data["r2"] >= LEAST_EXPLAINED


def test_a_checkpoint_is_known_before_the_host_has_fetched_its_weights() -> None:
    """Paged weights have the dtype of the file, here float32, until the model works in bfloat16."""
    from dit_acceleration_pack.acceleration import host

    network = tm.make_model("flux2", torch.bfloat16).model.diffusion_model
    used = host.checkpoint_identity(network)
    for parameter in network.parameters():
        parameter.data = parameter.data.float() * (1 + 1e-4)  # rounds to what it was
    assert host.checkpoint_identity(network) == used


@pytest.mark.parametrize(("threshold", "cfg"), [(0.2, 1.0), (0.6, 1.0), (1.5, 3.0)])
def test_the_same_evaluations_are_skipped_as_by_hand(threshold: float, cfg: float) -> None:
    """The published recurrence on recorded inputs, written out here a second time."""
    from dit_acceleration_pack.acceleration.families.flux import FAMILY

    model = tm.make_model("flux")
    inputs: list[torch.Tensor] = []
    layer = model.model.diffusion_model.double_blocks[0].img_attn.qkv
    layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0].double().clone()))
    accelerated = attach(model, rel_l1_thresh=threshold, max_continuous_cached_steps=-1)
    tm.sample(accelerated, "flux", steps=28, cfg=cfg)
    a, b, c, d, e = FAMILY.fits[0].coefficients
    skipped, total = [False], 0.0
    for k in range(1, 28):
        x = float((inputs[k] - inputs[k - 1]).abs().mean() / inputs[k - 1].abs().mean())
        total += max(a * x**4 + b * x**3 + c * x**2 + d * x + e, 0.0)
        skip = total < threshold and k < 27
        total = total if skip else 0.0
        skipped.append(skip)
    assert [r.skipped for r in tm.report_of(accelerated).evaluations] == skipped
    if threshold > 0.5:
        assert any(skipped)


def test_teacache_replaces_cache_dit_and_says_so() -> None:
    chained = attach(tm.attach(tm.make_model("flux")), rel_l1_thresh=0.3)
    tm.sample(chained, "flux")
    report = tm.report_of(chained)
    assert report.technique == "TeaCache"
    assert any("replaced Cache-DiT" in notice for notice in report.notices)
    back = tm.attach(chained)
    tm.sample(back, "flux")
    assert tm.report_of(back).technique == "Cache-DiT"


@pytest.mark.parametrize("first", [True, False])
def test_the_cores_easycache_on_the_same_model(first: bool) -> None:
    """Two caches on one model: ours stands back and says so."""
    from comfy_extras.nodes_easycache import EasyCacheNode

    def easy(model: Any) -> Any:
        return EasyCacheNode.execute(model, 0.2, 0.15, 0.95, False).result[0]

    def ours(model: Any) -> Any:
        return tm.attach(model, residual_diff_threshold=0.9)

    model = tm.make_model("flux", torch.bfloat16)
    both = ours(easy(model)) if first else easy(ours(model))
    alone = tm.sample(easy(tm.make_model("flux", torch.bfloat16)), "flux")
    assert torch.equal(tm.sample(both, "flux"), alone)
    report = tm.report_of(both)
    assert report.skipped == 0 and "EasyCache" in report.sentence()
