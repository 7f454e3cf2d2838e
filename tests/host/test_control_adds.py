"""What the host adds between blocks counts once, on skipped evaluations too."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models as tm
import torch


def twice_the_same(model: Any, name: str, positive: list[Any]) -> torch.Tensor:
    """Three steps whose second sees exactly the input of the first (equal sigmas)."""
    import comfy.sample
    import comfy.samplers

    with torch.inference_mode():
        empty = torch.zeros(1, *tm.TINY[name].latent)
        noise = comfy.sample.prepare_noise(empty, 0)
        return comfy.sample.sample_custom(
            model,
            noise,
            1.0,
            comfy.samplers.sampler_object("euler"),
            torch.tensor([0.9, 0.9, 0.4, 0.0]),
            positive,
            tm.conditioning(name, 2),
            empty,
            disable_pbar=True,
            seed=0,
        )


def control_for(name: str) -> tm.TinyControl:
    generator = torch.Generator().manual_seed(7)
    tokens, width = 16, tm.FLUX_CONFIG["hidden_size"]
    adds = [torch.randn(1, tokens, width, generator=generator) * 3 for _ in range(5)]
    return tm.TinyControl({"input": [*adds[:2]], "output": [*adds[2:]]})


@pytest.mark.parametrize("calibrator", ["none", "taylorseer", "trajectory"])
@pytest.mark.parametrize(("first", "last"), [(1, 0), (2, 0), (3, 1), (1, 2)])
@pytest.mark.parametrize("name", ["flux", "flux2", "chroma"])
def test_a_hit_at_an_unchanged_input_equals_recomputing(
    name: str, first: int, last: int, calibrator: str
) -> None:
    model = tm.make_model(name)
    positive = tm.add_control(tm.conditioning(name, 1), control_for(name))
    accelerated = tm.attach(
        model,
        Fn_compute_blocks=first,
        Bn_compute_blocks=last,
        scm_compute_bins="1,1",
        scm_cache_bins="1",
        calibrator=calibrator,
    )
    plain = twice_the_same(model, name, positive)
    quick = twice_the_same(accelerated, name, positive)
    assert [e.skipped for e in tm.report_of(accelerated).evaluations] == [False, True, False]
    assert (quick - plain).norm() / plain.norm() < 1e-5
    without = twice_the_same(model, name, tm.conditioning(name, 1))
    assert (without - plain).norm() / plain.norm() > 1e-3, "the control really acts"


def test_block_patches_of_wan_count_once() -> None:
    """VACE-style: a patch adds to the hidden state after every block, in place."""
    model = tm.make_model("wan")
    generator = torch.Generator().manual_seed(5)
    add = torch.randn(1, 1, 32, generator=generator)

    def patch(arguments: dict[str, Any]) -> dict[str, Any]:
        arguments["img"] += add.to(arguments["img"].device)
        return arguments

    options = model.model_options["transformer_options"]
    options.setdefault("patches", {})["double_block"] = [patch]
    accelerated = tm.attach(model, scm_compute_bins="1,1", scm_cache_bins="1")
    positive = tm.conditioning("wan", 1)
    plain = twice_the_same(model, "wan", positive)
    quick = twice_the_same(accelerated, "wan", positive)
    assert tm.report_of(accelerated).skipped == 1
    assert (quick - plain).norm() / plain.norm() < 1e-5


@pytest.mark.parametrize("name", ["flux", "flux2", "chroma", "wan"])
def test_residuals_are_not_zero(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In-place blocks make a snapshot by reference equal to the result: every clone matters."""
    from dit_acceleration_pack.acceleration.sampling import gate_steps

    seen: list[float] = []
    capture = gate_steps.capture

    def spy(self: Any, stack: Any, output: Any) -> None:
        capture(self, stack, output)
        seen.append(
            min(float(self.now.signal.abs().mean()), float(self.now.residual["image"].abs().mean()))
        )

    monkeypatch.setattr(gate_steps, "capture", spy)
    tm.sample(tm.attach(tm.make_model(name)), name, steps=4)
    assert len(seen) == 4 and min(seen) > 1e-3


def test_a_block_replaced_by_a_patch_is_never_trusted() -> None:
    """A patch that swallows the last block: caching goes off, the picture stays right."""
    model = tm.make_model("flux")

    def replacement(arguments: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        return {"img": arguments["img"]}

    model.set_model_patch_replace(replacement, "dit", "single_block", 2)
    plain = tm.sample(model, "flux", steps=8)
    accelerated = tm.attach(model, residual_diff_threshold=0.9, max_warmup_steps=2)
    assert torch.equal(tm.sample(accelerated, "flux", steps=8), plain)
    assert tm.report_of(accelerated).skipped == 0
    assert any("another patch" in notice for notice in tm.report_of(accelerated).notices)


def test_a_last_block_that_disappears_in_mid_run_is_recomputed() -> None:
    """Blocks were handed through, then the last gate was not reached: the run must notice."""
    model = tm.make_model("flux")
    calls = [0]

    def replacement(arguments: dict[str, Any], extra: dict[str, Any]) -> Any:
        calls[0] += 1
        if calls[0] <= 4:
            return extra["original_block"](arguments)
        return {"img": arguments["img"]}

    def plain_run() -> torch.Tensor:
        calls[0] = 0
        return tm.sample(patched, "flux", steps=8)

    patched = model.clone()
    patched.set_model_patch_replace(replacement, "dit", "single_block", 2)
    plain = plain_run()
    accelerated = tm.attach(patched, residual_diff_threshold=0.98, max_warmup_steps=4)
    calls[0] = 0
    quick = tm.sample(accelerated, "flux", steps=8)
    assert torch.equal(quick, plain)
    assert any("switched off" in notice for notice in tm.report_of(accelerated).notices)


def test_a_patch_on_the_block_sees_the_block() -> None:
    """Other people's block replacements still run on computed and skipped evaluations."""
    model = tm.make_model("flux")
    seen: list[int] = []

    def replacement(arguments: dict[str, Any], extra: dict[str, Any]) -> Any:
        seen.append(arguments["transformer_options"]["block_index"])
        return extra["original_block"](arguments)

    model.set_model_patch_replace(replacement, "dit", "double_block", 1)
    accelerated = tm.attach(model, residual_diff_threshold=0.9)
    tm.sample(accelerated, "flux", steps=8)
    assert seen == [1] * 8 and tm.report_of(accelerated).skipped > 0


@pytest.mark.parametrize(("first", "last", "idle"), [(1, 0, True), (2, 0, True), (1, 2, False)])
def test_side_blocks_rest_on_skipped_evaluations(first: int, last: int, idle: bool) -> None:
    """VACE blocks that only feed skipped blocks need not run; the picture is the same."""
    model = tm.make_model("wan_vace")
    network = model.model.diffusion_model
    calls = [0]

    def count(*_: Any) -> None:
        calls[0] += 1

    for block in network.vace_blocks:
        block.ffn.register_forward_hook(count)
    accelerated = tm.attach(
        model,
        Fn_compute_blocks=first,
        Bn_compute_blocks=last,
        scm_compute_bins="1,1",
        scm_cache_bins="1",
    )
    positive = tm.conditioning("wan_vace", 1)
    plain = twice_the_same(model, "wan_vace", positive)
    each = calls[0] // 3
    calls[0] = 0
    quick = twice_the_same(accelerated, "wan_vace", positive)
    assert tm.report_of(accelerated).skipped == 1
    assert (quick - plain).norm() / plain.norm() < 1e-5
    before_decision = sum(i < first - 1 for i in network.vace_layers_mapping)
    assert calls[0] == 2 * each + (before_decision if idle else each)
