"""The same for videos: reference audio of LTX-2, and context windows with other tricks inside."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models as tm
import torch
from tricks import Owners
from whole import whole

STATIC: dict[str, Any] = {"scm_preset": "fast", "scm_policy": "static"}
STEPS = 14


class VoiceVae:
    """As much of an audio VAE as the host's node asks for."""

    audio_sample_rate = 16000

    def encode(self, waveform: torch.Tensor) -> torch.Tensor:
        return torch.randn(1, 8, 5, 16, generator=torch.Generator().manual_seed(3))


def with_reference(model: Any) -> tuple[Any, Any, Any, list[float]]:
    """The host's LTXV Reference Audio, and how strongly it guides at every step."""
    nodes = pytest.importorskip("comfy_extras.nodes_lt")
    if not hasattr(nodes, "LTXVReferenceAudio"):
        pytest.skip("this ComfyUI has no LTXV Reference Audio")
    audio = {"waveform": torch.zeros(1, 2, 16000), "sample_rate": 16000}
    positive, negative = tm.conditioning("ltxav", 1), tm.conditioning("ltxav", 2)
    found = nodes.LTXVReferenceAudio.execute(
        model, positive, negative, audio, VoiceVae(), 3.0, 0.0, 1.0
    )
    guided, positive, negative = getattr(found, "result", None) or found.args
    *others, guide = guided.model_options["sampler_post_cfg_function"]
    strength: list[float] = []

    def spy(args: dict[str, Any]) -> Any:
        output = guide(args)
        strength.append(float((output - args["denoised"]).abs().mean()))
        return output

    guided.model_options["sampler_post_cfg_function"] = [*others, spy]
    return guided, positive, negative, strength


def sample_with_reference(model: Any, cfg: float, apart: bool) -> tuple[torch.Tensor, list[float]]:
    guided, positive, negative, strength = with_reference(model)
    conds = {"positive": positive, "negative": negative}
    if not apart:
        return tm.sample(guided, "ltxav", steps=STEPS, cfg=cfg, **conds), strength
    with tm.split_batches(guided):
        return tm.sample(guided, "ltxav", steps=STEPS, cfg=cfg, **conds), strength


@pytest.mark.parametrize(("cfg", "apart"), [(3.0, False), *whole([(1.0, False), (3.0, True)])])
def test_reference_audio_of_ltx2_guides(cfg: float, apart: bool) -> None:
    model = tm.make_model("ltxav")
    plain, strong = sample_with_reference(model, cfg, apart)
    never = tm.attach(model, residual_diff_threshold=0.0)
    assert torch.equal(sample_with_reference(never, cfg, apart)[0], plain)
    accelerated = tm.attach(model, **STATIC)
    quick, found = sample_with_reference(accelerated, cfg, apart)
    assert quick.isfinite().all() and tm.report_of(accelerated).skipped > 5
    assert all(now > 0.02 * then for now, then in zip(found, strong, strict=True))
    assert torch.equal(sample_with_reference(accelerated, cfg, apart)[0], quick)


def windows(trick: str, owners: Owners, model: Any) -> Any:
    """A MODEL that is sampled in windows of frames, with a trick inside."""
    from comfy.patcher_extension import WrappersMP

    def window(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        options = next(
            v for v in (*args, *kwargs.values()) if isinstance(v, dict) and "sigmas" in v
        )
        return tuple(options["context_window"].index_list), tuple(options["uuids"])

    def network(executor: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        where = window(args, kwargs)
        owners((where, 0))
        if trick != "network called twice":
            return executor(x, *args, **kwargs)
        first = executor(x, *args, **kwargs)
        owners((where, 1))
        return first + 0.1 * (first - executor(0.9 * x, *args, **kwargs))

    def tiles(call: Any, arguments: dict[str, Any]) -> Any:
        x, found = arguments["input"], []
        for part in x.chunk(2, dim=-1):
            found.append(call(part.contiguous(), arguments["timestep"], **arguments["c"]))
        return torch.cat(found, dim=-1)

    patched = model.clone()
    patched.model_options["context_handler"] = tm.context_windows("standard_static", 4, 1)
    if trick == "tiles":
        patched.set_model_unet_function_wrapper(tiles)
    else:
        patched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "another_pack", network)
    return patched


@pytest.mark.parametrize("trick", ["none", "network called twice", "tiles"])
def test_windows_with_tricks_inside(trick: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owners = Owners()
    model = tm.make_model("wan")

    def run(accelerated: Any) -> torch.Tensor:
        built = windows(trick, owners, accelerated)
        return tm.sample(built, "wan", steps=10, cfg=3.0, latent=(16, 7, 8, 8))

    plain = run(model)
    assert torch.equal(run(tm.attach(model, residual_diff_threshold=0.0)), plain)
    if trick != "tiles":  # told apart by their order there, which the watch does not see
        owners.watch(monkeypatch)
    accelerated = tm.attach(model, **STATIC)
    quick = run(accelerated)
    report = tm.report_of(accelerated)
    assert quick.isfinite().all() and not owners.crossed
    calls = {"none": 1, "network called twice": 2, "tiles": 2}[trick]
    assert len(report.branches()) == 2 * calls, "two windows"
    assert report.skipped > 0.3 * len(report.evaluations)
    assert torch.equal(run(accelerated), quick)
