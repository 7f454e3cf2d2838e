"""Quantize Model on the host's models: a twin of the model, measured, and no trace on the model."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_models as tm
import torch
from quantize_runs import attach, is_quantized, relative, report_of
from whole import whole

from dit_acceleration_pack.acceleration import host
from dit_acceleration_pack.acceleration.errors import AccelerationError
from dit_acceleration_pack.acceleration.host import quantize as host_quantize
from dit_acceleration_pack.acceleration.quantize import FORMATS

CHANGED_BY_HAND = "wan22_animate"
"""A tiny model whose network is not what its configuration says, so no twin of it can run."""
OTHERS = tuple(name for name in tm.TINY if name not in (*tm.POPULAR, CHANGED_BY_HAND))
FEWER_CHANNELS = ("hunyuan3d", "hunyuan3d_mini", "hunyuan3d_2_1")
"""Tiny models with fewer channels than the latents that the host samples."""
LAYER = "double_blocks.0.img_mlp.0"


@pytest.fixture(autouse=True)
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What auto remembers is of this test only."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_user_directory", lambda: str(tmp_path))
    return tmp_path


# ------------------------------------------------------------------ the model, and the twin


@pytest.mark.parametrize("name", [*tm.POPULAR, *whole(OTHERS)])
def test_int8_of_every_family(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = tm.make_model(name)
    before = tm.sample(model, name, steps=3)
    small = attach(model, name)
    report = report_of(small)
    got = tm.sample(small, name, steps=3)
    with capsys.disabled():
        print(f"\n{name}: {report.sentence()} {report.notices}")
    assert got.isfinite().all() and not torch.equal(got, before)
    assert report.layers and report.bytes_after < report.bytes_before
    if name in FEWER_CHANNELS:
        assert report.measured is None and "could not be sampled to measure" in report.text()
    else:
        assert report.measured is not None and 0 < report.measured <= 0.03
    assert relative(got, before) < 0.3
    assert torch.equal(tm.sample(model, name, steps=3), before)
    assert torch.equal(tm.sample(small, name, steps=3), got)


def test_a_copy_that_does_not_run_leaves_the_model_alone() -> None:
    model = tm.make_model(CHANGED_BY_HAND)
    before = tm.sample(model, CHANGED_BY_HAND, steps=2)
    small = attach(model, CHANGED_BY_HAND)
    assert "its quantized copy does not run" in report_of(small).sentence()
    assert torch.equal(tm.sample(small, CHANGED_BY_HAND, steps=2), before)


def test_every_tensor_that_is_not_quantized_is_shared() -> None:
    model = tm.make_model("flux")
    small = attach(model, "flux")
    old = model.model.diffusion_model.state_dict()
    new = dict(small.model.diffusion_model.named_parameters())
    quantized = {layer.path + ".weight" for layer in report_of(small).layers}
    assert quantized and quantized < set(old)
    for name, tensor in old.items():
        if name in quantized:
            assert is_quantized(new[name]), name
        else:
            assert new[name].data_ptr() == tensor.data_ptr(), name
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.model.modules())


@pytest.mark.parametrize("precision", FORMATS)
def test_bytes_are_as_computed(precision: str) -> None:
    small = attach(tm.make_model("flux"), "flux", precision=precision, measure="off")
    network, report = small.model.diffusion_model, report_of(small)
    own = 0
    for layer in report.layers:
        weight = network.get_submodule(layer.path).weight
        held = sum(tensor.nbytes for tensor in weight.state_dict("w").values())
        assert held == layer.bytes_after, layer
        own += held
    assert own == report.own_bytes
    rest = {id(p): p for p in network.parameters() if not is_quantized(p)}
    assert report.bytes_after == own + sum(p.nbytes for p in rest.values())


def test_the_twin_goes_with_its_clone() -> None:
    import comfy.model_management as management

    model = tm.make_model("flux")
    small = attach(model, "flux")
    tm.sample(small, "flux", steps=2)
    twin = weakref.ref(small.model)
    management.unload_all_models()
    del small
    gc.collect()
    assert twin() is None
    assert tm.sample(model, "flux", steps=2).isfinite().all()


def test_a_report_says_what_each_holds() -> None:
    report = report_of(attach(tm.make_model("flux"), "flux"))
    assert report.own_bytes == sum(layer.bytes_after for layer in report.layers)
    assert "of its own" in report.text() and "shared with the model" in report.text()


# ------------------------------------------------------------------ refusals


def test_a_quantized_model_is_refused() -> None:
    small = attach(tm.make_model("flux"), "flux", measure="off")
    with pytest.raises(AccelerationError, match="quantized already"):
        attach(small)
    cast = tm.make_model("flux")
    weight = cast.model.diffusion_model.get_submodule(LAYER).weight
    weight.data = weight.data.to(torch.float8_e4m3fn)
    with pytest.raises(AccelerationError, match="quantized already \\(float8_e4m3fn\\)"):
        attach(cast)


def test_gguf_is_refused() -> None:
    class GGMLTensor(torch.Tensor):
        pass

    model = tm.make_model("flux")
    layer = model.model.diffusion_model.get_submodule(LAYER)
    layer.weight = torch.nn.Parameter(layer.weight.data.as_subclass(GGMLTensor), False)
    with pytest.raises(AccelerationError, match="GGUF"):
        attach(model)


def test_replaced_parts_and_several_gpus_are_refused() -> None:
    model = tm.make_model("flux").clone()
    model.add_object_patch("diffusion_model.double_blocks.0", torch.nn.Identity())
    with pytest.raises(AccelerationError, match=r"double_blocks\.0.*before it"):
        attach(model)
    model = tm.make_model("flux").clone()
    model.set_additional_models("multigpu", [model.clone()])
    with pytest.raises(AccelerationError, match="several GPUs"):
        attach(model)


def test_a_lock_leaves_it_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tm.make_model("flux")
    plain = tm.sample(model, "flux", steps=3)
    monkeypatch.setenv("DIT_ACCEL_LOCK_LOSSY", "1")
    locked = attach(model, "flux")
    assert locked.model is model.model
    assert torch.equal(tm.sample(locked, "flux", steps=3), plain)
    lever = host.lever_of(locked, host.QUANTIZE_KEY)
    assert lever is not None and "DIT_ACCEL_LOCK_LOSSY" in lever.last_report.sentence()


@pytest.mark.every_host
def test_a_host_without_int8_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.quant_ops

    algorithms = dict(getattr(comfy.quant_ops, "QUANT_ALGOS", {}))
    algorithms.pop("int8_tensorwise", None)
    monkeypatch.setattr(comfy.quant_ops, "QUANT_ALGOS", algorithms)
    model = tm.make_model("flux")
    plain = tm.sample(model, "flux", steps=3)
    left = attach(model, "flux", precision="auto")
    assert "no int8 weights" in report_of(left).sentence()
    assert torch.equal(tm.sample(left, "flux", steps=3), plain)
    with pytest.raises(AccelerationError, match="no int8 weights"):
        attach(model, "flux", precision="int8")


# ------------------------------------------------------------------ formats and devices


@pytest.mark.parametrize("precision", ["fp8", "mxfp8", "nvfp4"])
def test_without_a_kernel_only_memory_is_saved(precision: str) -> None:
    model = tm.make_model("flux", device=tm.CPU)
    small, emulated = (
        attach(model, "flux", precision=precision, emulate=emulate, measure="off")
        for emulate in (False, True)
    )
    assert "saves memory, not time" in report_of(small).text()
    plain, weights, both = (tm.sample(m, "flux", steps=2) for m in (model, small, emulated))
    assert relative(weights, plain) < relative(both, plain)


@pytest.mark.parametrize("precision", FORMATS)
def test_the_host_computes_what_was_reckoned(precision: str) -> None:
    """One layer by the host's kernels, and by the arithmetic that chooses formats."""
    from dit_acceleration_pack.acceleration.host.quantize_layouts import quantized, quantized_layer
    from dit_acceleration_pack.acceleration.quantize import (
        Choice,
        Layer,
        best,
        output,
        rounded_weight,
    )

    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(128, 64, generator=generator)
    x = torch.randn(2, 96, 64, generator=generator)
    plain = torch.nn.Linear(64, 128)
    choice = best(Layer("", 128, 64, torch.float32), precision, weight, None)
    choices = [choice]
    if precision == "int8":
        smooth = torch.exp2(torch.randint(-3, 4, (64,), generator=generator).float())
        choices += [Choice(choice.layer, "int8", rotation, smooth) for rotation in (0, 64)]
    for one in choices:
        made = quantized_layer(
            plain, quantized(weight, one, torch.float32), one, torch.float32, False
        )
        with torch.inference_mode():
            got = made(x)
        wanted = output(x, rounded_weight(weight, one), one) + plain.bias
        assert relative(got, wanted) < 2e-3, one
        assert relative(got, x @ weight.T + plain.bias) > 2e-3, one
        made._full_precision_mm = True
        with torch.inference_mode():
            exact = made(x)
        kept = made.weight.dequantize()
        assert torch.allclose(exact, x @ kept.T + plain.bias, atol=1e-4), one


def test_weights_can_be_taken_apart_and_made_again() -> None:
    """As the host does for a LoRA: in the basis of the model, not of the layout."""
    small = attach(tm.make_model("flux"), "flux", measure="off")
    network = small.model.diffusion_model
    for layer in report_of(small).layers:
        module = network.get_submodule(layer.path)
        weight = module.convert_weight(module.weight)
        again = module.set_weight(weight.clone(), return_weight=True, seed=0)
        assert relative(again.dequantize(), weight) < 0.01, layer


def test_exact_steps() -> None:
    model = tm.make_model("flux")
    plain = tm.sample(model, "flux", steps=8)
    without, some, all_of_them = (
        attach(model, "flux", exact_steps=count, measure="off") for count in (0, 2, 4)
    )
    errors = [relative(tm.sample(m, "flux", steps=8), plain) for m in (without, some, all_of_them)]
    assert report_of(some).exact_evaluations == 4 and report_of(some).evaluations == 8
    assert report_of(all_of_them).exact_evaluations == 8
    assert "exact_steps 4 covers all 8 steps" in report_of(all_of_them).text()
    assert errors[2] < errors[1] < errors[0]
    layers = [m for m in all_of_them.model.modules() if getattr(m, "layout_type", None)]
    assert layers and not any(layer._full_precision_mm for layer in layers)


def test_a_step_that_cannot_be_told_is_sampled_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tm.make_model("flux")
    exact, plain = (attach(model, "flux", exact_steps=n, measure="off") for n in (2, 0))
    wanted = tm.sample(plain, "flux", steps=4)

    def faulty(_: Any) -> Any:
        raise KeyError("sigmas")

    monkeypatch.setattr(host_quantize, "sampler_sigma", faulty)
    assert torch.equal(tm.sample(exact, "flux", steps=4), wanted)
    assert report_of(exact).text().count("could not tell the step") == 1


# ------------------------------------------------------------------ auto and mixed


def test_auto_leaves_alone_what_does_not_get_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    from dit_acceleration_pack.acceleration.host import quantize_kernels

    model = tm.make_model("flux")
    monkeypatch.setattr(quantize_kernels, "_times", lambda *_: {"as it is": 1.0, "int8": 0.99})
    left = attach(model, "flux", precision="auto")
    assert left.model is model.model
    assert "no format is faster here" in report_of(left).sentence()
    assert "as it is 1 ms" in report_of(left).text()


def test_auto_takes_what_is_faster_and_remembers_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from dit_acceleration_pack.acceleration.host import quantize_kernels

    raced: list[Any] = []

    def times(*given: Any) -> dict[str, float]:
        raced.append(given)
        return {"as it is": 1.0, "int8": 0.5}

    monkeypatch.setattr(quantize_kernels, "_times", times)
    model = tm.make_model("flux")
    for _ in range(2):
        report = report_of(attach(model, "flux", precision="auto"))
        assert report.precision == "int8" and report.measured <= 0.01
    assert len(raced) == 1 and "remembered" in report.race


def test_auto_goes_on_to_the_next_where_too_many_layers_go_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dit_acceleration_pack.acceleration.host import quantize_kernels

    monkeypatch.setattr(quantize_kernels, "_has_kernel", lambda *_: True)
    times = {"as it is": 1.0, "nvfp4": 0.3, "int8": 0.5}
    monkeypatch.setattr(quantize_kernels, "_times", lambda *_: times)
    report = report_of(attach(tm.make_model("flux"), "flux", precision="auto", emulate=True))
    assert report.precision == "int8" and report.measured <= 0.01
    assert not report.went_back and set(report.formats) == {"int8"}


def test_the_race_times_what_there_is() -> None:
    from dit_acceleration_pack.acceleration.host.quantize_kernels import faster_formats
    from dit_acceleration_pack.acceleration.quantize import linear_layers

    model = tm.make_model("flux", device=tm.CPU)
    layers = linear_layers(model.model.diffusion_model, host.structure_of(model))
    told, _ = faster_formats(model, layers, {"int8"})
    assert "as it is" in told and "int8" in told and "ms" in told


def test_mixed_fits_the_memory_that_was_given() -> None:
    model = tm.make_model("flux")
    total = sum(p.nbytes for p in model.model.diffusion_model.parameters())
    sizes = [0.6, 0.4, 0.3]
    found = [
        report_of(
            attach(model, "flux", precision="mixed", memory_gb=share * total / 1e9, emulate=True)
        )
        for share in sizes
    ]
    for share, report in zip(sizes, found, strict=True):
        assert report.bytes_after <= share * total or "is the smallest" in report.text()
    assert found[0].bytes_after > found[1].bytes_after
    assert found[0].measured < found[1].measured
    small = report_of(attach(model, "flux", precision="mixed", emulate=True))
    assert small.predicted <= 0.03 and len(small.formats) > 1


def test_layers_that_hurt_go_back() -> None:
    model = tm.make_model("flux")
    report = report_of(attach(model, "flux", precision="nvfp4", emulate=True))
    assert report.went_back, report.sentence()
    assert report.measured <= 0.03
    assert set(report.went_back) <= set(report.kept)
    assert "went back" in report.text()


def test_kept_layers_stay() -> None:
    small = attach(tm.make_model("flux"), "flux", keep="img_mlp, single_blocks.1", measure="off")
    report = report_of(small)
    assert report.kept["double_blocks.0.img_mlp.0"] == "kept by img_mlp"
    assert not any("single_blocks.1" in layer.path for layer in report.layers)


def test_without_a_probe_the_model_is_quantized_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dit_acceleration_pack.acceleration.host import quantize_choose

    def fails(*_: Any, **__: Any) -> Any:
        raise ValueError("no such text")

    monkeypatch.setattr(quantize_choose, "probe", fails)
    small = attach(tm.make_model("flux"), "flux")
    report = report_of(small)
    assert report.layers and report.measured is None
    assert not any("smoothed" in layer.basis for layer in report.layers)
    assert "no such text" in report.text() and "connect a prompt" in report.text()
    assert tm.sample(small, "flux", steps=2).isfinite().all()


def test_cancel_while_it_is_measured_is_obeyed() -> None:
    import comfy.model_management

    cancel = comfy.model_management.InterruptProcessingException

    def raises(*_: Any) -> None:
        raise cancel

    with pytest.raises(cancel):
        attach(tm.watch(tm.make_model("flux"), raises), "flux")


def in_the_joined_call(error: Exception) -> Any:
    """A model that fails where the calls of the probe are made as one, side by side in a batch."""

    def raises(x: torch.Tensor, *_: Any) -> None:
        if len(x) > 1:
            raise error

    return tm.watch(tm.make_model("flux"), raises)


def test_cancel_in_the_joined_call_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.model_management

    class CancelError(Exception):
        """What the host's Cancel is in older versions: an ordinary exception."""

    monkeypatch.setattr(comfy.model_management, "InterruptProcessingException", CancelError)
    with pytest.raises(CancelError):
        attach(in_the_joined_call(CancelError()), "flux")


def test_a_batch_that_memory_does_not_hold_is_probed_one_by_one() -> None:
    report = report_of(attach(in_the_joined_call(torch.OutOfMemoryError("no room")), "flux"))
    assert report.measured is not None


@pytest.mark.parametrize("name", [tm.POPULAR[0], *whole(tm.POPULAR[1:])])
def test_noise_takes_the_place_of_a_prompt(name: str) -> None:
    report = report_of(attach(tm.make_model(name)))
    assert "noise in place of a prompt" in report.probe, report.notices
    assert report.measured is not None


def test_a_multi_gpu_clone_is_quantized_alike() -> None:
    model = tm.make_model("flux")
    model.cached_patcher_init = (lambda **_: tm.make_model("flux"), ())
    small = attach(model, "flux")
    copy = small.deepclone_multigpu(new_load_device=small.load_device)
    assert copy.model is not small.model
    assert torch.equal(tm.sample(copy, "flux", steps=3), tm.sample(small, "flux", steps=3))


def test_settings_reach_the_report() -> None:
    resolved = SimpleNamespace(origins={"precision": "node"}, notices=())
    from dit_acceleration_pack.acceleration.quantize import QuantizeSettings

    small = host.attach_quantize(
        tm.make_model("flux"), QuantizeSettings("int8", measure="off"), None, resolved
    )
    assert "precision int8 (node)" in report_of(small).text()
