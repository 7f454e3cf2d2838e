"""Quantize Model beside everything else that acts on a MODEL."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tm
import torch
from quantize_runs import attach, relative, report_of
from whole import first

from dit_acceleration_pack.acceleration import host
from dit_acceleration_pack.acceleration.attention import AttentionSettings
from dit_acceleration_pack.acceleration.errors import AccelerationError
from dit_acceleration_pack.acceleration.host import performance
from dit_acceleration_pack.acceleration.host.quantize_probe import loaded, plain, probe
from dit_acceleration_pack.acceleration.performance import PerformanceSettings
from dit_acceleration_pack.acceleration.policies.cache_dit import CacheDiT
from dit_acceleration_pack.acceleration.policies.tea_cache import TeaCache
from dit_acceleration_pack.acceleration.progressive import ProgressiveSettings
from dit_acceleration_pack.acceleration.quantize import linear_layers
from dit_acceleration_pack.acceleration.settings.caching import (
    CacheDiTSettings,
    TeaCacheSettings,
)

STEPS = 6


@pytest.fixture(autouse=True)
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_user_directory", lambda: str(tmp_path))


# ------------------------------------------------------------------ levers

LEVERS: dict[str, Callable[[Any], Any]] = {
    "Cache-DiT": lambda model: host.attach(
        model, CacheDiT(CacheDiTSettings(residual_diff_threshold=0.5, max_warmup_steps=2))
    ),
    "TeaCache": lambda model: host.attach(
        model, TeaCache(TeaCacheSettings(rel_l1_thresh=0.5, coefficients="raw"))
    ),
    "Attention Backend": lambda model: host.attach_attention(
        model, AttentionSettings(backend="sdpa_math")
    ),
    "Progressive Resolution": lambda model: host.attach_progressive(
        model, ProgressiveSettings("custom", switch_sigma=0.8, min_full_steps=2)
    ),
}


@pytest.mark.parametrize("name", first(LEVERS))
def test_with_another_lever_in_either_order(name: str) -> None:
    latent = (16, 32, 32)
    model = tm.make_model("flux")
    other = tm.sample(LEVERS[name](model), "flux", steps=STEPS, cfg=2.0, latent=latent)
    before = attach(LEVERS[name](model), "flux", measure="off")
    after = LEVERS[name](attach(model, "flux", measure="off"))
    got = [tm.sample(m, "flux", steps=STEPS, cfg=2.0, latent=latent) for m in (before, after)]
    assert torch.equal(*got)
    assert relative(got[0], other) < 0.05
    for key in (host.QUANTIZE_KEY, *host.levers_of(LEVERS[name](model))):
        lever = host.lever_of(after, key)
        assert lever is not None and lever.last_report is not None, key
    assert torch.equal(
        tm.sample(LEVERS[name](model), "flux", steps=STEPS, cfg=2.0, latent=latent), other
    )


def test_levers_before_the_node_do_not_act_in_its_probe() -> None:
    model = tm.make_model("flux")
    skipping = host.attach(
        model, CacheDiT(CacheDiTSettings(scm_preset="ultra", scm_policy="static"))
    )
    one, other = (report_of(attach(m, "flux")) for m in (model, skipping))
    assert [la.error for la in one.layers] == [la.error for la in other.layers]


def test_three_pictures_at_once() -> None:
    model = tm.make_model("flux")
    small = attach(model, "flux", measure="off")
    got = tm.sample(small, "flux", steps=3, batch=3)
    assert relative(got, tm.sample(model, "flux", steps=3, batch=3)) < 0.02
    one = tm.sample(small, "flux", steps=3)
    assert torch.allclose(got[:1], one, atol=2e-2)


def test_two_prompts_for_two_halves() -> None:
    model = tm.make_model("flux")
    small = attach(model, "flux", measure="off")
    positive = tm.conditioning("flux", 1) + tm.conditioning("flux", 5)
    mask = torch.zeros(1, 64, 64)
    mask[..., :32] = 1
    for place, (_, options) in enumerate(positive):
        options |= {"mask": mask if place else 1 - mask, "mask_strength": 1.0}
        options |= {"set_area_to_bounds": False}
    sampled = [tm.sample(m, "flux", steps=3, positive=positive, cfg=2.0) for m in (small, model)]
    assert relative(*sampled) < 0.03


@pytest.mark.whole
@pytest.mark.parametrize("keys", [["diffusion_model.double_blocks.0"], ["diffusion_model"]])
def test_torch_compile(keys: list[str]) -> None:
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    torch._dynamo.reset()
    model = tm.make_model("flux")
    small = attach(model, "flux", exact_steps=1, measure="off")
    wanted = tm.sample(small, "flux", steps=4)
    compiled = small.clone()
    set_torch_compile_wrapper(compiled, backend="eager", keys=keys)
    got = tm.sample(compiled, "flux", steps=4)
    assert relative(got, wanted) < 1e-3
    assert report_of(compiled).exact_evaluations == 2
    torch._dynamo.reset()


# ------------------------------------------------------------------ LoRA and hooks


def lora(model: Any, seed: int = 0, size: float = 0.2) -> dict[str, Any]:
    """A LoRA on every layer of the blocks, as patches."""
    generator = torch.Generator().manual_seed(seed)
    network = host.network_of(model)
    found = {}
    for layer in linear_layers(network, host.structure_of(model)):
        change = torch.randn(layer.rows, 4, generator=generator) @ torch.randn(
            4, layer.columns, generator=generator
        )
        weight = network.get_submodule(layer.path).weight
        change *= size * float(weight.norm() / change.norm())
        found[f"diffusion_model.{layer.path}.weight"] = ("diff", (change,))
    return found


def patched(model: Any, patches: dict[str, Any]) -> Any:
    clone = model.clone()
    assert len(clone.add_patches(patches)) == len(patches)
    return clone


@pytest.mark.parametrize("sampled", [False, True])
def test_loras_are_in_the_basis_of_the_model(sampled: bool) -> None:
    """Before and after the node, whether or not the host has patched the model in place."""
    model = tm.make_model("flux")
    patches = lora(model)
    before = patched(model, patches)
    with_lora = tm.sample(patched(model, patches), "flux", steps=3)
    without = tm.sample(model, "flux", steps=3)
    assert relative(with_lora, without) > 0.03
    if sampled:
        tm.sample(before, "flux", steps=1)
    folded = attach(before, "flux", measure="off")
    assert report_of(folded).folded == len(report_of(folded).layers) == len(patches)
    assert not folded.patches
    on_top = attach(before, "flux", fold_loras=False, measure="off")
    after = patched(attach(model, "flux", measure="off"), patches)
    errors = [relative(tm.sample(m, "flux", steps=3), with_lora) for m in (folded, on_top, after)]
    assert errors[0] < 0.01 and errors[1] < 0.03 and errors[2] < 0.03, errors
    assert errors[0] < errors[1]
    assert torch.equal(tm.sample(model, "flux", steps=3), without)


def test_a_lora_on_what_is_kept_stays_a_patch() -> None:
    model = tm.make_model("flux")
    generator = torch.Generator().manual_seed(0)
    weight = model.model.diffusion_model.img_in.weight
    change = 0.3 * torch.randn(weight.shape, generator=generator) * weight.std()
    before = patched(model, {"diffusion_model.img_in.weight": ("diff", (change,))})
    small = attach(before, "flux", measure="off")
    assert list(small.patches) == ["diffusion_model.img_in.weight"]
    assert relative(tm.sample(small, "flux", steps=3), tm.sample(before, "flux", steps=3)) < 0.01


def hooked(model: Any, patches: dict[str, Any], strength: float) -> list[Any]:
    """A prompt with a LoRA of its own, from the middle of the run on."""
    import comfy.hooks

    hook = comfy.hooks.WeightHook(strength_model=strength)
    hook.need_weight_init = False
    hook.weights, hook.weights_clip = patches, {}
    frames = comfy.hooks.HookKeyframeGroup()
    frames.add(comfy.hooks.HookKeyframe(strength=0.0, start_percent=0.0))
    frames.add(comfy.hooks.HookKeyframe(strength=1.0, start_percent=0.4))
    group = comfy.hooks.HookGroup()
    group.add(hook)
    group.set_keyframes_on_hooks(frames)
    return comfy.hooks.set_hooks_for_conditioning(tm.conditioning("flux", 1), hooks=group)


def test_hooks_that_change_loras_in_mid_run() -> None:
    model = tm.make_model("flux")
    patches = lora(model)
    plain_run = tm.sample(model, "flux", steps=STEPS)
    wanted = tm.sample(model, "flux", steps=STEPS, positive=hooked(model, patches, 1.0))
    assert relative(wanted, plain_run) > 0.02
    small = attach(model, "flux", measure="off")
    first = tm.sample(small, "flux", steps=STEPS)
    for _ in range(2):
        got = tm.sample(small, "flux", steps=STEPS, positive=hooked(model, patches, 1.0))
        assert relative(got, wanted) < 0.02
    assert torch.equal(tm.sample(small, "flux", steps=STEPS), first), "a hook stayed"


@pytest.mark.parametrize("with_lora", [False, True])
def test_low_vram_loading(with_lora: bool) -> None:
    """Weights that are fetched for every product, with and without a LoRA to be added then."""
    model = tm.make_model("flux", device=tm.CPU)
    small = attach(model, "flux", measure="off")
    patches = lora(model)
    exact = patched(model, patches) if with_lora else model
    streamed = patched(small, patches) if with_lora else small.clone()
    layers = [layer.path for layer in report_of(small).layers]
    found = probe(exact, layers, tm.conditioning("flux", 1), tm.empty_latent("flux"))
    with loaded(plain(streamed)) as whole:
        at_once = found.error(whole.apply_model)
    streamed.detach()
    with torch.inference_mode():
        streamed.load(tm.CPU, lowvram_model_memory=1)
        try:
            assert streamed.model.model_lowvram
            error = found.error(streamed.model.apply_model)
        finally:
            streamed.detach()
    assert 0 < error < 0.02 and error < 1.5 * at_once


# ------------------------------------------------------------------ files


def saved(model: Any, path: Path) -> None:
    import comfy.sd

    with torch.inference_mode():
        comfy.sd.save_checkpoint(str(path), model)


def demo_model() -> Any:
    """The demo model: its file loads as any other, a tiny model has none."""
    import comfy.sd

    from comfyui_environment import ROOT

    folder = ROOT / "workflows" / "demo" / "models"
    return comfy.sd.load_diffusion_model(str(folder / "dit_accel_demo_flux.safetensors"))


def one_step(model: Any) -> torch.Tensor:
    import comfy.sample

    generator = torch.Generator().manual_seed(0)
    text = torch.randn(1, 8, 64, generator=generator)
    pooled = torch.randn(1, model.model.model_config.unet_config["vec_in_dim"], generator=generator)
    conditioning = [[text, {"pooled_output": pooled}]]
    with torch.inference_mode():
        return comfy.sample.sample(
            model, torch.randn(1, 16, 8, 8, generator=generator), 1, 1.0, "euler", "simple",
            conditioning, conditioning, torch.zeros(1, 16, 8, 8), disable_pbar=True, seed=0,
        )  # fmt: skip


@pytest.mark.parametrize("precision", ["mxfp8", "nvfp4"])
def test_what_was_saved_loads_in_the_hosts_own_loader(precision: str, tmp_path: Path) -> None:
    import comfy.sd

    small = attach(demo_model(), precision=precision, measure="off", keep="*_mod, *modulation")
    wanted = one_step(small)
    saved(small, tmp_path / "small.safetensors")
    with torch.inference_mode():
        again = comfy.sd.load_diffusion_model(str(tmp_path / "small.safetensors"))
    held, loaded_again = (m.model.diffusion_model.state_dict() for m in (small, again))
    assert held.keys() == loaded_again.keys()
    for name, tensor in held.items():
        both = (one.reshape(-1).view(torch.uint8) for one in (tensor, loaded_again[name]))
        assert torch.equal(*both), name
    # Tensors of a file lie at other addresses, for which processors sum in another order.
    assert torch.allclose(one_step(again), wanted, atol=1e-4)
    with pytest.raises(AccelerationError, match="quantized already"):
        attach(again)


def test_smoothed_int8_refuses_to_be_saved(tmp_path: Path) -> None:
    small = attach(tm.make_model("flux"), "flux", measure="off")
    assert any("smoothed" in layer.basis for layer in report_of(small).layers)
    with pytest.raises(AccelerationError, match="cannot be saved"):
        saved(small, tmp_path / "small.safetensors")
    assert not (tmp_path / "small.safetensors").exists()


# ------------------------------------------------------------------ the node


def test_the_node_and_its_report() -> None:
    import importlib

    pack = importlib.import_module("dit_acceleration_pack.nodes")
    nodes = {node.define_schema().node_id: node for node in pack.NODES}
    node, report = nodes["AccelQuantize"], nodes["AccelReport"]
    latent = {"samples": tm.empty_latent("flux")}
    small = node.execute(
        tm.make_model("flux"),
        precision="int8",
        positive=tm.conditioning("flux", 1),
        latent_image=latent,
    ).args[0]
    sampled = tm.sample(small, "flux", steps=2)
    _, text, data, plot = report.execute(small, sampled).args
    assert "a prompt" in text and "Settings: precision int8 (node)" in text
    assert json.loads(data)["quantize"]["formats"] == {"int8": 29}
    assert plot.shape[2] == 960


def test_performance_mode_says_when_it_would_help(monkeypatch: pytest.MonkeyPatch) -> None:
    """It never switches it on by itself."""
    from types import SimpleNamespace

    from dit_acceleration_pack.acceleration.host import quantize

    monkeypatch.setattr(quantize, "kernels_of", lambda _: frozenset({"int8"}))
    model = tm.make_model("flux", device=tm.CPU)
    assert quantize.would_help(model, 4) == "", "on a processor nobody waits for it"
    seen = SimpleNamespace(
        load_device=torch.device("cuda"), model=model.model, object_patches={},
        get_attachment=model.get_attachment,
        get_additional_models_with_key=model.get_additional_models_with_key,
    )  # fmt: skip
    assert "with 4 steps" in quantize.would_help(seen, 4)
    assert quantize.would_help(seen, 20) == ""
    seen.model = attach(model, "flux", measure="off").model
    assert quantize.would_help(seen, 4) == "", "it is quantized already"
    sampled = host.attach_performance(model, PerformanceSettings(mode="auto", approximation="off"))
    monkeypatch.setattr(performance, "would_help", lambda *_: "it would help")
    tm.sample(sampled, "flux", steps=2)
    lever = host.lever_of(sampled, host.PERFORMANCE_KEY)
    assert lever is not None and "it would help" in lever.last_report.text()
