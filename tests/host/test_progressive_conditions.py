"""What conditions become while the picture is small, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models as tm
import torch
from progressive_runs import LATENTS, SETTINGS, SIZE, Seen, attach, counts, report_of, run
from whole import whole

from dit_acceleration_pack.acceleration import host
from dit_acceleration_pack.acceleration.host import small_conditions
from dit_acceleration_pack.acceleration.progressive import FLOW, Corner, ProgressiveSettings

HALF = (16, 16)


def with_options(name: str, seed: int = 1, **options: Any) -> list[Any]:
    return [[c, {**given, **options}] for c, given in tm.conditioning(name, seed)]


# ------------------------------------------------------------------ areas and masks


@pytest.mark.parametrize(
    ("area", "ratios", "small"),
    [
        ((16, 16, 0, 8), (2.0, 2.0), (8, 8, 0, 4)),
        # From 3 to 10 is from 1.5 to 5: what it covers in part, it covers.
        ((7, 7, 3, 3), (2.0, 2.0), (4, 4, 1, 1)),
        ((1, 1, 31, 31), (2.0, 2.0), (1, 1, 15, 15)),
        ((5, 16, 16, 1, 8, 0), (2.0, 4.0), (5, 8, 4, 1, 4, 0)),
        (("percentage", 0.5, 0.5, 0.0, 0.0), (2.0, 2.0), ("percentage", 0.5, 0.5, 0.0, 0.0)),
    ],
)
def test_areas_by_hand(area: Any, ratios: Any, small: Any) -> None:
    assert small_conditions.small_area(area, ratios) == small


@pytest.mark.parametrize("kind", ["area", "percentage", "mask", "bounds"])
def test_regional_prompts(kind: str) -> None:
    """Two prompts side by side, the way each node of the host marks them."""
    mask = torch.zeros(1, *SIZE)
    mask[..., :16] = 1.0
    regions: dict[str, dict[str, Any]] = {
        "area": {"area": (32, 16, 0, 0), "strength": 1.0},
        "percentage": {"area": ("percentage", 1.0, 0.5, 0.0, 0.0), "strength": 1.0},
        "mask": {"mask": mask, "mask_strength": 1.0},
        "bounds": {"mask": mask, "mask_strength": 1.0, "set_area_to_bounds": True},
    }
    positive = [*with_options("flux", 1, **regions[kind]), *tm.conditioning("flux", 3)]
    seen = Seen(tm.make_model("flux"))
    quick = attach(seen.model)
    output = run(quick, positive=positive, cfg=2.0)
    assert output.isfinite().all() and report_of(quick).coarse and not report_of(quick).refused
    small = {size for size, sigma in zip(seen.sizes, seen.sigmas, strict=True) if sigma == 1}
    assert small == ({HALF} if kind == "mask" else {HALF, (16, 8)})


# ------------------------------------------------------------------ further pictures


class HintedControl(tm.TinyControl):
    """A ControlNet that makes its hint for the latent it is shown, and has a range of steps."""

    def __init__(self, width: int) -> None:
        super().__init__({})
        self.width = width
        self.sizes: list[tuple[int, ...]] = []
        self.ranges: list[tuple[float, float]] = []
        self.prepared = 0
        self.timestep_range: Any = None

    def pre_run(self, _model: Any, percent_to_sigma: Any) -> None:
        self.prepared += 1
        self.timestep_range = (percent_to_sigma(0.0), percent_to_sigma(0.9))

    def get_control(self, noisy: torch.Tensor, *_: Any) -> Any:
        self.sizes.append(tuple(noisy.shape[-2:]))
        self.ranges.append(self.timestep_range)
        tokens = noisy.shape[-2] * noisy.shape[-1] // 4
        adds = [torch.full((1, tokens, self.width), 0.3, device=noisy.device)] * 2
        return {"input": adds, "output": []}


def test_a_control_is_shown_the_small_latent() -> None:
    control = HintedControl(tm.FLUX_CONFIG["hidden_size"])
    positive = tm.add_control(tm.conditioning("flux", 1), control)
    model = tm.make_model("flux")
    quick = attach(model)
    output = run(quick, positive=positive)
    assert not torch.equal(output, run(quick))
    assert list(dict.fromkeys(control.sizes)) == [HALF, SIZE]
    # Prepared once: doing it again in mid-run would set it back.
    assert control.prepared == 1
    full = control.ranges[-1]
    assert control.ranges[0] == tuple(FLOW.matched(sigma, 2.0) for sigma in full)
    assert control.timestep_range == full


def test_hooks_begin_at_the_same_moment() -> None:
    class Keyframe:
        start_t = 0.8

    class Group:
        keyframes = (Keyframe(),)

    class Hook:
        hook_keyframe = Group()

    class Hooks:
        hooks = (Hook(), Hook())

    keyframe = Hook.hook_keyframe.keyframes[0]
    conds = {"positive": [{"hooks": Hooks()}]}
    with pytest.raises(KeyError), small_conditions.matched_ranges(conds, lambda s: s / 2):
        assert keyframe.start_t == 0.4
        raise KeyError
    assert keyframe.start_t == 0.8


def test_ranges_of_prompts_mean_the_same_moments() -> None:
    """One prompt up to the middle and another from there on: one of them in every evaluation."""
    model = tm.make_model("flux")
    quick = attach(model, switch_sigma=0.5)
    positive = [
        *with_options("flux", 1, start_percent=0.0, end_percent=0.3),
        *with_options("flux", 3, start_percent=0.3, end_percent=1.0),
    ]
    contexts: list[torch.Tensor] = []
    plain: list[torch.Tensor] = []
    run(tm.watch(model, lambda _x, c, _o: plain.append(c.clone())), positive=positive, steps=12)
    run(tm.watch(quick, lambda _x, c, _o: contexts.append(c.clone())), positive=positive, steps=12)
    assert report_of(quick).coarse[0].evaluations > 6
    assert len(contexts) == len(plain) == 12
    assert all(torch.equal(a, b) for a, b in zip(contexts, plain, strict=True))
    assert not torch.equal(plain[0], plain[-1])


def test_references_shrink_with_the_picture() -> None:
    reference = torch.randn(1, 16, 24, 40, generator=torch.Generator().manual_seed(5))
    seen = Seen(tm.make_model("flux_kontext"))
    positive = with_options("flux_kontext", 1, reference_latents=[reference])
    quick = attach(seen.model)
    tm.sample(quick, "flux_kontext", steps=8, latent=(16, *SIZE), positive=positive)
    given = [one["ref_latents"][0] for one in seen.given]
    assert given[0].shape[-2:] == (12, 20) and given[-1].shape[-2:] == (24, 40)
    expected = Corner((24, 40), (12, 20)).low_pass(given[-1])
    assert torch.allclose(given[0], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "latent", "extra"),
    [
        ("flux_fill", (16, *SIZE), {"concat_latent_image": (1, 16, *SIZE)}),
        ("wan_i2v", (16, 3, *SIZE), {"concat_latent_image": (1, 16, 3, *SIZE)}),
        ("wan_vace", (16, 3, *SIZE), {}),
        ("wan_camera", (16, 3, *SIZE), {"camera_conditions": (1, 24, 3, 256, 256)}),
        ("wan_scail", (16, 3, *SIZE), {"pose_video_latent": (1, 16, 3, 16, 16)}),
    ],
)
def test_pictures_beside_the_latent(name: str, latent: Any, extra: dict[str, Any]) -> None:
    model = tm.make_model(name)
    given: dict[str, Any] = {key: torch.randn(shape) for key, shape in extra.items()}
    if name == "wan_vace":
        given["vace_frames"] = [torch.randn(1, 32, 3, *SIZE)]
        given["vace_mask"] = [torch.rand(1, 64, 3, *SIZE)]
    if name == "wan_scail":
        given["reference_latents"] = [torch.randn(1, 16, 1, *SIZE)]
    seen = Seen(model)
    quick = attach(seen.model)
    positive, negative = (with_options(name, seed, **given) for seed in (1, 2))
    output = tm.sample(
        quick, name, steps=8, cfg=2.0, latent=latent, positive=positive, negative=negative
    )
    assert output.isfinite().all() and not report_of(quick).refused
    assert report_of(quick).coarse
    if "concat_latent_image" in extra:
        assert {tuple(one["concat"].shape[-2:]) for one in seen.given} == {HALF, SIZE}


def test_windows_over_the_frames_of_a_video() -> None:
    model = tm.make_model("wan").clone()
    model.model_options["context_handler"] = tm.context_windows("standard_static", 3, 1)
    plain = run(model, "wan", latent=(16, 5, *SIZE))
    seen = Seen(model)
    quick = attach(seen.model)
    output = run(quick, "wan", latent=(16, 5, *SIZE))
    assert output.shape == plain.shape and report_of(quick).coarse
    assert seen.sizes[:2] == [HALF, HALF] and seen.sizes[-2:] == [SIZE, SIZE]
    assert len(seen.sizes) == 16
    assert model.model_options["context_handler"].context_length == 3


# ------------------------------------------------------------------ guidance


def test_guidance_sees_the_full_size() -> None:
    """What packs hang behind the guidance, with a memory of the step before, goes on over the
    switch, and an evaluation that it makes for itself is small as well."""
    import comfy.samplers

    model = tm.make_model("flux").clone()
    before: list[torch.Tensor] = []

    def after(args: dict[str, Any]) -> torch.Tensor:
        again = comfy.samplers.calc_cond_batch(
            args["model"], [args["cond"]], args["input"], args["sigma"], args["model_options"]
        )[0]
        assert torch.allclose(again, args["cond_denoised"], atol=1e-4)
        if before:
            _ = before[-1] + args["denoised"]
        before.append(args["denoised"])
        found: torch.Tensor = args["denoised"]
        return found

    model.set_model_sampler_post_cfg_function(after)
    seen = Seen(model)
    quick = attach(seen.model)
    run(quick, cfg=2.0)
    assert {tuple(one.shape[-2:]) for one in before} == {SIZE}
    assert seen.sizes[:2] == [HALF, HALF] and not report_of(quick).notices


def test_a_guider_of_three_prompts() -> None:
    import comfy.sample
    import comfy.samplers
    from comfy_extras.nodes_custom_sampler import Guider_DualCFG

    seen = Seen(tm.make_model("flux"))
    quick = attach(seen.model)
    guider = Guider_DualCFG(quick)
    guider.set_conds(*(tm.conditioning("flux", seed) for seed in (1, 2, 3)))
    guider.set_cfg(2.0, 3.0)
    empty = torch.zeros(1, *LATENTS["flux"])
    sigmas = comfy.samplers.calculate_sigmas(quick.get_model_object("model_sampling"), "simple", 8)
    with torch.inference_mode():
        output = guider.sample(
            comfy.sample.prepare_noise(empty, 0), empty, comfy.samplers.sampler_object("euler"),
            sigmas, disable_pbar=True, seed=0,
        )  # fmt: skip
    assert output.isfinite().all() and report_of(quick).coarse and not report_of(quick).notices
    assert seen.sizes[0] == HALF and seen.sizes[-1] == SIZE


def test_conditions_of_others_go_at_full_size() -> None:
    import comfy.samplers

    model = tm.make_model("flux").clone()

    def after(args: dict[str, Any]) -> torch.Tensor:
        own = [dict(one) for one in args["cond"]]
        comfy.samplers.calc_cond_batch(
            args["model"], [own], args["input"], args["sigma"], args["model_options"]
        )
        found: torch.Tensor = args["denoised"]
        return found

    model.set_model_sampler_post_cfg_function(after)
    seen = Seen(model)
    quick = attach(seen.model)
    run(quick, cfg=2.0)
    assert seen.sizes[:2] == [HALF, SIZE]
    assert "another node evaluates conditions of its own" in report_of(quick).text()


@pytest.mark.slow
@pytest.mark.parametrize("name", [*tm.POPULAR, *whole(n for n in tm.TINY if n not in tm.POPULAR)])
def test_every_family_is_small_or_says_why_not(name: str) -> None:
    """With what its own conditions hold, at four times the size that it is tested at elsewhere."""
    shape = tm.TINY[name].latent
    quick, options = attach(tm.make_model(name), min_full_steps=1), {"steps": 4}
    if isinstance(shape[0], int) and len(shape) > 2:
        try:
            large = (*shape[:-2], 4 * shape[-2], 4 * shape[-1])
            output = tm.sample(quick, name, latent=large, **options)
        except (RuntimeError, ValueError):  # its conditions are made for the usual size only
            output = tm.sample(quick, name, **options)
    else:
        output = tm.sample(quick, name, **options)
    assert output.isfinite().all()
    report = report_of(quick)
    assert bool(report.coarse) != bool(report.refused), report.sentence()


# ------------------------------------------------------------------ refused


def refused(model: Any, name: str, **options: Any) -> str:
    """The sentence of a run that went at full size, as if the node were not there."""
    options = {"steps": 6, **options}
    plain = tm.sample(model, name, **options)
    quick = attach(model)
    assert torch.equal(tm.sample(quick, name, **options), plain)
    report = report_of(quick)
    assert not report.coarse and report.refused
    assert report.sentence().count("\n") == 0
    return report.sentence()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ace_step", "its latent is sound"),
        ("stable_audio", "its latent is sound"),
        ("hunyuan3d", "no height and width"),
        ("ltxav", "2 parts"),
        ("flux", "too small to be halved"),
    ],
)
def test_what_has_no_smaller_size(name: str, words: str) -> None:
    known = [known for known in tm.TINY if known.startswith(name)]
    if not known:
        pytest.skip(f"there is no tiny {name}")
    assert words in refused(tm.make_model(known[0]), known[0])


@pytest.mark.whole
def test_clean_frames_inside_the_noise_are_refused() -> None:
    mask = torch.ones(1, 1, 3, *SIZE)
    mask[:, :, :1] = 0.0
    name = next(known for known in tm.TINY if known.startswith("ltxv"))
    frames = (tm.TINY[name].latent[0], 3, *SIZE)
    sentence = refused(tm.make_model(name), name, latent=frames, noise_mask=mask)
    assert "clean parts inside the noisy latent" in sentence
    without = attach(tm.make_model(name))
    tm.sample(without, name, steps=6, latent=frames)
    assert report_of(without).coarse


def test_an_unknown_mixture_is_refused() -> None:
    import comfy.model_sampling

    model = tm.make_model("flux").clone()

    class Other(comfy.model_sampling.ModelSamplingFlux, comfy.model_sampling.IMG_TO_IMG):
        pass

    model.add_object_patch("model_sampling", Other())
    assert "does not mix picture and noise" in refused(model, "flux", latent=(16, *SIZE))


def test_a_patch_that_knows_one_size_only() -> None:
    """The run goes on at full size, as without the node from there on, and says why."""
    model = tm.make_model("flux")

    def one_size(x: torch.Tensor, _context: Any, _options: Any) -> None:
        if x.shape[-1] != SIZE[1]:
            raise RuntimeError("The size of tensor a (64) must match the size of tensor b (256)")

    quick = attach(tm.watch(model, one_size))
    assert torch.equal(run(quick), run(model))
    sentence = report_of(quick).sentence()
    assert "does not take the smaller latent" in sentence and "size of tensor a" in sentence
    assert counts(quick) == {"32 x 32": 8}


def test_nothing_is_small_below_the_switch() -> None:
    model = tm.make_model("flux")
    quick = host.attach_progressive(
        model, ProgressiveSettings(**{**SETTINGS, "min_full_steps": 100})
    )
    assert torch.equal(run(quick), run(model))
    assert "min_full_steps 100" in report_of(quick).sentence()


def test_our_own_fault_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tm.make_model("flux")
    quick = attach(model)
    monkeypatch.setattr(Corner, "down", lambda *_: 1 / 0)
    assert torch.equal(run(quick), run(model))
    assert "ZeroDivisionError" in report_of(quick).sentence()


def test_a_video_of_latents_is_small_in_space_only() -> None:
    seen: list[torch.Size] = []
    model = tm.watch(tm.make_model("wan"), lambda x, _c, _o: seen.append(x.shape))
    run(attach(model), "wan", latent=(16, 5, *SIZE))
    assert seen[0] == (1, 16, 5, *HALF) and seen[-1] == (1, 16, 5, *SIZE)
    assert LATENTS["wan"][1] == 3
