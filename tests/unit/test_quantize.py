"""Formats, smoothing, plans and names of Quantize Model, by numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from dit_acceleration_pack.acceleration.errors import AccelerationError
from dit_acceleration_pack.acceleration.plots import quantize_plot
from dit_acceleration_pack.acceleration.quantize import (
    FORMATS,
    Choice,
    Layer,
    LayerReport,
    QuantizeReport,
    QuantizeSettings,
    Seen,
    best,
    linear_layers,
    output,
    predicted,
    relative,
    rounded_weight,
    why_kept,
)
from dit_acceleration_pack.acceleration.quantize.plan import mixed, smallest_within, within_error
from dit_acceleration_pack.acceleration.quantize.rounding import (
    ROUNDING,
    fp8,
    hadamard,
    int8,
    mxfp8,
    nvfp4,
    rotated,
    smoothing,
)

# ------------------------------------------------------------------ formats


def test_int8_has_a_scale_a_row() -> None:
    x = torch.tensor([[127.0, 1.4, -0.6], [1.27, 0.014, -0.006]])
    assert torch.allclose(int8(x), torch.tensor([[127.0, 1.0, -1.0], [1.27, 0.01, -0.01]]))


def test_fp8_has_three_bits_after_the_point_in_every_row() -> None:
    x = torch.tensor([[448.0, 17.0, 1.06], [448e4, 17e4, 1.06e4]])
    wanted = torch.tensor([[448.0, 16.0, 1.0], [448e4, 16e4, 1.0e4]])
    assert torch.allclose(fp8(x), wanted, rtol=1e-6)


def test_mxfp8_has_a_power_of_two_for_32_values() -> None:
    x = torch.cat([torch.full((1, 32), 448.0), torch.full((1, 32), 449.0)], dim=1)
    # 449 needs a scale of 2, in which 224 and 240 are neighbors.
    assert mxfp8(x)[0, [0, 32]].tolist() == [448.0, 448.0]
    assert mxfp8(torch.tensor([[1.0, 1.07]]))[0].tolist() == [1.0, 1.125]


def test_nvfp4_has_eight_magnitudes() -> None:
    x = torch.tensor([[6.0, 5.1, 4.9, 2.4, 0.2, -1.3] + [0.0] * 10])
    assert nvfp4(x)[0, :6].tolist() == pytest.approx([6.0, 6.0, 4.0, 2.0, 0.0, -1.5], rel=1e-6)


@pytest.mark.parametrize("name", FORMATS)
def test_zeros_stay_zeros(name: str) -> None:
    assert torch.equal(ROUNDING[name](torch.zeros(2, 48)), torch.zeros(2, 48))


@pytest.mark.parametrize(
    ("name", "bytes_of_it"),
    [
        ("int8", 256 * 512 + 256 * 4),
        ("fp8", 256 * 512 + 256 * 4),
        ("mxfp8", 256 * 512 + 256 * 16),
        ("nvfp4", 256 * 512 // 2 + 256 * 32 + 4),
    ],
)
def test_bytes_of_a_weight(name: str, bytes_of_it: int) -> None:
    assert FORMATS[name].bytes(256, 512) == bytes_of_it


@pytest.mark.parametrize("size", [16, 64, 256])
def test_a_rotation_is_undone_by_itself_and_keeps_lengths(size: int) -> None:
    assert torch.equal(hadamard(size), hadamard(size).T)
    x = torch.randn(3, 2 * size)
    assert torch.allclose(rotated(rotated(x, size), size), x, atol=1e-5)
    assert float(rotated(x, size).norm()) == pytest.approx(float(x.norm()), rel=1e-5)


# ------------------------------------------------------------------ smoothing and choosing


def layer(path: str = "a", rows: int = 64, columns: int = 64, modulation: bool = False) -> Layer:
    return Layer(path, rows, columns, torch.float32, modulation)


def test_smoothing_is_the_root_of_both_sides_in_powers_of_two() -> None:
    activations = torch.tensor([16.0, 1.0, 1024.0, 0.0])
    weight = torch.tensor([[1.0, 1.0, -0.25, 1.0], [0.5, 0.0, 0.1, 0.0]])
    assert smoothing(activations, weight).tolist() == [4.0, 1.0, 64.0, 1.0]


def planted(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A layer's weight and input with one channel of a thousand times the size."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(64, 64, generator=generator) / 8
    x = torch.randn(200, 64, generator=generator)
    x[:, 3] *= 1000
    weight[:, 3] /= 1000
    return weight, x


def test_a_channel_of_a_thousand_is_smoothed() -> None:
    weight, x = planted()
    exact = x @ weight.T
    plain = Choice(layer(), "int8")
    assert relative(output(x, rounded_weight(weight, plain), plain), exact) > 0.3
    found = best(layer(), "int8", weight, Seen.of(x, 64))
    assert found.smooth is not None and found.smooth[3] > 500 * found.smooth[4]
    assert relative(output(x, rounded_weight(weight, found), found), exact) < 0.012


def test_rows_near_60000_are_no_matter_with_a_scale_a_row() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 64, generator=generator) / 8
    x = torch.randn(200, 64, generator=generator)
    x[5] *= 2e4
    for name in ("int8", "fp8", "mxfp8"):
        found = best(layer(), name, weight, Seen.of(x, 64))
        got = output(x, rounded_weight(weight, found), found)
        others = torch.arange(200) != 5
        assert relative(got[others], (x @ weight.T)[others]) < 0.05, name


def test_rotation_is_taken_where_it_measures_better() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 64, generator=generator)
    x = torch.randn(100, 64, generator=generator)
    weight[::2, 0] = 30.0
    x[:, 0] = 0.001
    assert best(layer(), "int8", weight, None).rotation == 64
    flat = best(layer(columns=40), "int8", weight[:, :40], Seen.of(x[:, :40], 64))
    assert flat.rotation == 0, "40 channels are no groups of 16"


def test_what_was_seen_keeps_the_largest_row() -> None:
    x = torch.zeros(1000, 4)
    x[777, 2] = -9.0
    seen = Seen.of(x.reshape(10, 100, 4), 8)
    assert seen.maxima.tolist() == [0.0, 0.0, 9.0, 0.0]
    assert len(seen.rows) == 9 and bool((seen.rows == -9.0).any())
    seen.add(Seen.of(torch.full((2, 4), 5.0), 8))
    assert seen.maxima.tolist() == [5.0, 5.0, 9.0, 5.0]


# ------------------------------------------------------------------ which layers


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Linear(8, 16)
        block = torch.nn.ModuleDict(
            {
                "attn": torch.nn.Linear(16, 16),
                "img_mod": torch.nn.Sequential(torch.nn.SiLU(), torch.nn.Linear(16, 96)),
                "odd": torch.nn.Linear(16, 20),
            }
        )
        self.blocks = torch.nn.ModuleList([block])


def test_layers_are_those_within_blocks() -> None:
    found = linear_layers(Net(), None)
    assert [one.path for one in found] == ["blocks.0.attn", "blocks.0.img_mod.1", "blocks.0.odd"]
    assert [one.format_for("nvfp4") for one in found] == ["nvfp4", "int8", "nvfp4"]
    assert "no multiple of 8" in why_kept(found[2], ())
    assert why_kept(found[0], ["attn"]) == "kept by attn"
    assert why_kept(found[0], ["blocks.0"]) and why_kept(found[0], ["*tt*"])
    assert not why_kept(found[0], ["att", "blocks.1", "mod"])


# ------------------------------------------------------------------ plans


def choice(path: str, name: str, error: float) -> Choice:
    return Choice(layer(path, 256, 256), name, local=error, error=error)


OPTIONS = {
    "a": [choice("a", "int8", 0.001), choice("a", "nvfp4", 0.02)],
    "b": [choice("b", "int8", 0.001), choice("b", "nvfp4", 0.004)],
    "c": [choice("c", "int8", 0.002), choice("c", "nvfp4", 0.01)],
}


def test_mixed_takes_bytes_where_they_cost_least() -> None:
    int8_bytes, nvfp4_bytes = OPTIONS["a"][0].bytes, OPTIONS["a"][1].bytes

    def within(most: int) -> Any:
        return lambda plan: (
            sum(plan[p].bytes if p in plan else layer("", 256, 256).bytes for p in OPTIONS) <= most
        )

    plan = mixed(OPTIONS, within(3 * int8_bytes))
    assert {path: c.format for path, c in plan.items()} == dict.fromkeys("abc", "int8")
    plan = mixed(OPTIONS, within(2 * int8_bytes + nvfp4_bytes))
    assert [plan[path].format for path in "abc"] == ["int8", "nvfp4", "int8"]
    plan = mixed(OPTIONS, within(0))
    assert {c.format for c in plan.values()} == {"nvfp4"}, "as small as it gets"


def test_as_small_as_an_error_allows() -> None:
    plan = smallest_within(OPTIONS, 0.0115)
    assert [plan[path].format for path in "abc"] == ["int8", "nvfp4", "nvfp4"]
    assert predicted(plan.values()) == pytest.approx(math.hypot(0.001, 0.004, 0.01))
    assert smallest_within(OPTIONS, 0.0) == {}


def test_the_worst_go_back() -> None:
    plan = {path: choices[1] for path, choices in OPTIONS.items()}
    # Twice of what was predicted: without a, 2 x hypot(0.004, 0.01) = 0.0215 is left.
    measured = 2 * math.hypot(0.02, 0.004, 0.01)
    left, gone = within_error(plan, measured, 0.03)
    assert gone == ["a"] and set(left) == {"b", "c"}
    left, gone = within_error(plan, measured, 0.01)
    assert gone == ["a", "c"]
    assert within_error(plan, math.inf, 0.03)[1] == ["a"]


# ------------------------------------------------------------------ settings, report, plot


def test_settings_are_refused_in_a_sentence() -> None:
    with pytest.raises(AccelerationError, match="choose one of auto, int8, fp8, mxfp8, nvfp4, mix"):
        QuantizeSettings(precision="int4")
    with pytest.raises(AccelerationError, match="memory_gb is -1: it must be the GB"):
        QuantizeSettings(memory_gb=-1.0)
    assert QuantizeSettings(keep=" a.b , *c ,, ").patterns == ("a.b", "*c")


def report() -> QuantizeReport:
    found = [OPTIONS["a"][0], OPTIONS["b"][1]]
    return QuantizeReport(
        precision="mixed",
        layers=[LayerReport.of(one) for one in found],
        kept={"z": "kept by z"},
        bytes_before=2_000_000_000,
        bytes_after=600_000_000,
        predicted=0.0041,
        measured=0.0052,
        went_back=["y"],
    )


def test_the_report_in_words_and_as_data() -> None:
    text = report().text()
    assert text.startswith(
        "Quantize Model (mixed): 1 int8, 1 nvfp4 of 3 layers; weights 2.00 GB → 600.00 MB; "
        "error 0.52 % (predicted 0.41 %); 1 layers went back."
    )
    data = report().as_dict()
    assert data["formats"] == {"int8": 1, "nvfp4": 1} and data["layers"][1]["error"] == 0.004
    left = QuantizeReport(left_alone="no format is faster here", race="as it is 1 ms")
    assert "as it was: no format is faster here." in left.sentence()
    assert "as it is 1 ms" in left.text()


def test_the_plot_has_a_bar_a_layer() -> None:
    drawn = quantize_plot(report().as_dict())
    colors = {color for _, color in drawn.convert("RGB").getcolors(10**6)}
    assert {(0x2F, 0xA3, 0x6B), (0xC7, 0x7D, 0x1E)} <= colors
    assert quantize_plot(QuantizeReport(left_alone="why").as_dict()).size == (880, 120)
