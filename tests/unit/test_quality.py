"""Comparing pictures: against scikit-image's own figures, and by hand where it is simple."""

from __future__ import annotations

import json
import math
import sys
import types
from typing import Any

import numpy as np
import pytest
import torch
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from dit_acceleration_pack.acceleration.errors import AccelerationError
from dit_acceleration_pack.acceleration.plots import heat
from dit_acceleration_pack.acceleration.quality import metrics
from dit_acceleration_pack.acceleration.quality.metrics import compare
from dit_acceleration_pack.acceleration.quality.words import WORDS


def photographs() -> np.ndarray:
    """Two fixed photographs that come with scikit-image, ``[2, 128, 96, 3]`` uint8."""
    return np.stack([data.astronaut()[40:168, 180:276], data.chelsea()[60:188, 120:216]])


def spoilt(pictures: np.ndarray) -> np.ndarray:
    """The same with noise, the second with twice as much."""
    noise = np.random.default_rng(5).normal(0, 6, pictures.shape)
    noise[1] *= 2
    return np.clip(pictures + noise, 0, 255).astype(np.uint8)


def image(pictures: np.ndarray) -> torch.Tensor:
    """The host's IMAGE of 8-bit pictures."""
    return torch.from_numpy(pictures.astype(np.float32) / 255)


def latent(*shape: int, seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {"samples": torch.randn(*shape, generator=generator)}


def test_figures_are_those_of_scikit_image_on_the_8_bit_pictures() -> None:
    one = photographs()
    other = spoilt(one)
    found, _ = compare(image(one), image(other))
    for index, item in enumerate(found.items):
        psnr = peak_signal_noise_ratio(one[index], other[index], data_range=255)
        ssim = structural_similarity(one[index], other[index], channel_axis=-1, data_range=255)
        assert item.psnr == pytest.approx(psnr, abs=1e-3)
        assert item.ssim == pytest.approx(ssim, abs=1e-4)
    assert found.items[0].psnr > found.items[1].psnr + 4, "twice the noise is 6 dB"
    assert found.mean("psnr") == pytest.approx(np.mean([i.psnr for i in found.items]))


def test_psnr_by_hand() -> None:
    """A difference of 0.1 everywhere: 10 log10(1 / 0.01) = 20 dB."""
    found, differences = compare(torch.zeros(1, 8, 8, 3), torch.full((1, 8, 8, 3), 0.1))
    assert found.items[0].psnr == pytest.approx(20, abs=1e-4)
    assert torch.allclose(differences, torch.full((1, 8, 8), 0.1))
    assert found.items[0].largest_difference == pytest.approx(0.1)


def test_identical_pictures_are_accepted_and_make_valid_json() -> None:
    one = image(photographs())
    found, differences = compare(one, one.clone(), min_psnr=60, min_ssim=1.0)
    assert found.accepted and found.as_dict()["identical"] and found.mean("ssim") == 1.0
    assert found.mean("psnr") is None and "identical" in found.sentence()
    assert differences.count_nonzero() == 0
    json.dumps(found.as_dict(), allow_nan=False)


def test_acceptance_asks_the_worst_picture_not_the_mean() -> None:
    one = photographs()
    pair = image(one), image(spoilt(one))
    best, worst = (item.psnr for item in compare(*pair)[0].items)
    assert best is not None and worst is not None
    between = (best + worst) / 2 - 0.01
    found, _ = compare(*pair, min_psnr=between)
    assert found.mean("psnr") > between and not found.accepted
    assert "not accepted" in found.sentence()
    assert compare(*pair, min_psnr=worst - 0.01)[0].accepted
    assert not compare(*pair, min_ssim=0.999)[0].accepted


def test_video_latents_are_compared_frame_by_frame() -> None:
    one = latent(2, 4, 3, 16, 16)
    other = {"samples": one["samples"].clone()}
    other["samples"][1, :, 2] += 0.5
    found, differences = compare(one, other)
    assert found.kind == "latent frame" and differences.shape == (6, 16, 16)
    assert [item.identical for item in found.items] == [True] * 5 + [False]
    peak = float(one["samples"].max() - one["samples"].min())
    assert found.data_range == pytest.approx(peak)
    assert found.items[5].psnr == pytest.approx(10 * math.log10(peak**2 / 0.25), abs=1e-3)


def test_image_latents_of_video_models_are_pictures() -> None:
    assert compare(latent(1, 4, 1, 16, 16), latent(1, 4, 1, 16, 16))[0].kind == "latent"


def test_short_sides_get_a_smaller_window_and_a_note() -> None:
    found, _ = compare(latent(1, 4, 6, 16), latent(1, 4, 6, 16, seed=1))
    a, b = (latent(1, 4, 6, 16, seed=s)["samples"][0].movedim(0, -1).numpy() for s in range(2))
    ssim = structural_similarity(a, b, win_size=5, channel_axis=-1, data_range=found.data_range)
    assert found.items[0].ssim == pytest.approx(ssim)
    assert any("window of 5" in note for note in found.notes)
    assert compare(latent(1, 4, 2, 2), latent(1, 4, 2, 2, seed=1))[0].items[0].ssim is None


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        (torch.zeros(1, 8, 8, 3), torch.zeros(1, 8, 16, 3), "width 8 against 16"),
        (torch.zeros(1, 8, 8, 3), torch.zeros(2, 8, 8, 3), "pictures 1 against 2"),
        (torch.zeros(1, 8, 8, 3), latent(1, 3, 8, 8), "an IMAGE and accelerated a LATENT"),
        (torch.zeros(8, 8, 3), torch.zeros(8, 8, 3), "shape (8, 8, 3)"),
        ("text", torch.zeros(1, 8, 8, 3), "got str"),
        (torch.zeros(1, 8, 8, 3), torch.full((1, 8, 8, 3), math.nan), "accelerated has values"),
        (torch.zeros(0, 8, 8, 3), torch.zeros(0, 8, 8, 3), "holds no picture"),
    ],
)
def test_what_cannot_be_compared_gets_a_sentence(one: Any, other: Any, told: str) -> None:
    with pytest.raises(AccelerationError) as caught:
        compare(one, other)
    assert told in str(caught.value)


def test_a_missing_package_gets_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.metrics", None)
    with pytest.raises(AccelerationError, match="python -m pip install scikit-image"):
        compare(torch.zeros(1, 8, 8, 3), torch.zeros(1, 8, 8, 3))


def fake_lpips(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """A package that measures the mean difference, and the tensors that it was given."""
    seen: list[torch.Tensor] = []

    class LPIPS(torch.nn.Module):
        def __init__(self, net: str, verbose: bool) -> None:
            assert net == "alex"
            super().__init__()

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            seen.extend([a, b])
            return (a - b).abs().mean().reshape(1, 1, 1, 1)

    package = types.ModuleType("lpips")
    package.LPIPS = LPIPS  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lpips", package)
    return seen


def test_lpips_where_it_and_its_weights_are_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    seen = fake_lpips(monkeypatch)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    pair = torch.zeros(1, 8, 8, 3), torch.full((1, 8, 8, 3), 0.25)
    found, _ = compare(*pair)
    assert found.items[0].lpips is None and not seen, "nothing may be downloaded"
    assert any("nothing is downloaded" in note for note in found.notes)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / metrics.LPIPS_BACKBONE).touch()
    found, _ = compare(*pair)
    assert found.items[0].lpips == pytest.approx(0.5), "pictures go in as -1 to 1"
    assert seen[0].shape == (1, 3, 8, 8) and not found.notes


def test_heat_map_goes_from_dark_to_light() -> None:
    colors = heat.heat_map(torch.linspace(0, 1, 101)[None, None], 1.0)
    assert colors.shape == (1, 1, 101, 3)
    assert colors[0, 0, 0].tolist() == pytest.approx(list(heat.HEAT[0]))
    assert colors[0, 0, 50].tolist() == pytest.approx(list(heat.HEAT[2]))
    light = colors[0, 0] @ torch.tensor([0.2126, 0.7152, 0.0722])
    assert (light.diff() > 0).all()
    assert torch.equal(
        heat.heat_map(torch.zeros(1, 2, 2), 0.0), colors[:, :, :1].expand(1, 2, 2, 3)
    )


def test_words_come_first_and_the_farthest_picture_counts() -> None:
    one = torch.from_numpy(photographs()).float() / 255
    generator = torch.Generator().manual_seed(0)
    grain = torch.randn(one.shape, generator=generator)
    moved = torch.roll(one, 30, dims=2)
    cases = [
        (one, "identical"),
        (one + 0.004 * grain, "no visible difference"),
        (one + 0.05 * grain, "small differences in texture"),
        (0.75 * one + 0.25 * moved, "details changed"),
        (moved, "composition changed"),
    ]
    assert [words for _, words in cases] == list(WORDS)
    for other, words in cases:
        found, _ = compare(one, other)
        assert found.words == words, (words, found.items)
        first = "2 images: identical" if words == "identical" else words.capitalize()
        assert found.sentence().startswith(first)
    both = torch.stack([one[0], moved[1]])
    found, _ = compare(one, both)
    assert [item.words for item in found.items] == ["identical", "composition changed"]
    assert found.sentence().startswith("Composition changed; 2 images: PSNR")
    assert found.as_dict()["words"] == "composition changed"


def test_latents_have_no_words() -> None:
    found, _ = compare(latent(1, 4, 16, 16), latent(1, 4, 16, 16, seed=1))
    assert found.words == "" and found.sentence().startswith("1 latent: PSNR")
