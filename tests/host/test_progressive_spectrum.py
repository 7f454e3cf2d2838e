"""The spectrum of somebody's own pictures: fitted, kept, and used by runs that come after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_models as tm
import torch
from progressive_runs import LATENTS, attach, report_of, run

from dit_acceleration_pack.acceleration.errors import AccelerationError
from dit_acceleration_pack.acceleration.host.spectra import stored_spectrum
from dit_acceleration_pack.acceleration.progressive import fit


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_user_directory", lambda: str(tmp_path))
    return tmp_path / "dit_acceleration"


def pictures(name: str, count: int = 12, side: int = 32) -> dict[str, torch.Tensor]:
    """Latents whose power falls as in no published spectrum: rough pictures, 1 / f."""
    g = torch.Generator().manual_seed(3)
    noise = torch.randn(count, *tm.empty_latent(name).shape[1:-2], side, side, generator=g)
    order = torch.fft.fftfreq(side)
    radius = torch.hypot(order[:, None], order).clamp(min=1 / side)
    return {"samples": torch.fft.ifft2(torch.fft.fft2(noise) * radius**-0.5).real}


def switch(model: Any, name: str) -> str:
    run(model, name)
    return report_of(model).switch


@pytest.mark.every_host
@pytest.mark.parametrize("name", LATENTS)
def test_it_is_used_at_once_and_by_runs_that_come_after(name: str, folder: Path) -> None:
    model = tm.make_model(name)
    before = switch(attach(model, mode="fast"), name)
    fitted = attach(model, mode="fast", latents=pictures(name))
    with_pictures = switch(fitted, name)
    assert "fitted to 12 encoded pictures here" in with_pictures != before
    assert "fitted to 12 encoded pictures" in report_of(fitted).text()
    assert switch(attach(model, mode="fast"), name) == with_pictures
    assert len(list(folder.glob("spectrum_*.json"))) == 1
    # Another kind of latents has its own.
    other = next(n for n in LATENTS if n != name)
    assert "here" not in switch(attach(tm.make_model(other), mode="fast"), other)


def test_it_is_that_of_the_latents_as_the_model_sees_them(folder: Path) -> None:
    model, latents = tm.make_model("flux"), pictures("flux")
    attach(model, mode="fast", latents=latents)
    law = fit(model.model.process_latent_in(latents["samples"]))
    (path,) = folder.glob("spectrum_*.json")
    assert f'"A": {law.A}' in path.read_text() and f'"beta": {law.beta}' in path.read_text()


def test_it_counts_for_latents_of_any_size(folder: Path) -> None:
    model = tm.make_model("flux")
    attach(model, mode="fast", latents=pictures("flux", side=64))
    law = fit(model.model.process_latent_in(pictures("flux", side=64)["samples"]))
    half = stored_spectrum(model, (1, 16, 32, 32))
    assert half is not None and half.beta == pytest.approx(law.beta)
    assert pytest.approx(law.A * 0.5**law.beta) == half.A


def test_few_pictures_are_said_to_be_few() -> None:
    few = attach(tm.make_model("flux"), mode="fast", latents=pictures("flux", count=2))
    run(few, "flux")
    assert "12 or more would be better" in report_of(few).text()


def test_custom_goes_by_its_own_numbers() -> None:
    model = tm.make_model("flux")
    attach(model, mode="fast", latents=pictures("flux"))
    assert "as set" in switch(attach(model, mode="fast", spectrum="custom"), "flux")


def test_latents_of_another_autoencoder_are_refused_with_a_sentence() -> None:
    wrong = {"samples": torch.randn(2, 4, 32, 32)}
    with pytest.raises(AccelerationError, match="4 channels and this model's 16"):
        attach(tm.make_model("flux"), latents=wrong)
    with pytest.raises(AccelerationError, match="at least 16 x 16"):
        attach(tm.make_model("flux"), latents=pictures("flux", side=8))


def test_a_damaged_file_is_left_aside(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = tm.make_model("flux")
    attach(model, mode="fast", latents=pictures("flux"))
    (path,) = folder.glob("spectrum_*.json")
    path.write_text('{"A": "x"}')
    assert "here" not in switch(attach(model, mode="fast"), "flux")
    assert "is ignored" in caplog.text
