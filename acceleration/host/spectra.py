"""Spectra fitted to somebody's own pictures, kept in the host's user folder by latent format."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..errors import AccelerationError
from ..families.base import Spectrum
from ..progressive import PowerLaw, fit
from .calibrations import write_whole
from .model import network_of, structure_of

log = logging.getLogger("dit_acceleration")

ENOUGH = 12
"""Pictures from which on a fit hardly changes with further ones."""


def described_spectrum(model: Any) -> Spectrum | None:
    """What the model's family says of its latents."""
    structure = structure_of(model)
    described = structure.family.spectrum if structure is not None else None
    return described(network_of(model)) if described is not None else None


def fit_spectrum(model: Any, latents: Mapping[str, torch.Tensor]) -> str:
    """Fit a power law to encoded pictures and keep it for all models with such latents.

    Parameters
    ----------
    latents
        The host's LATENT, ``samples`` being ``[B, C, …, H, W]``.

    Returns
    -------
    What was found, for a report's notes.

    Raises
    ------
    AccelerationError
        When they are too small, constant, or not of this model's autoencoder.
    """
    samples = latents["samples"]
    channels = model.model.latent_format.latent_channels
    if samples.is_nested or samples.shape[1] != channels:
        found = "several parts" if samples.is_nested else f"{samples.shape[1]} channels"
        raise AccelerationError(
            f"the latents have {found} and this model's {channels}: encode the pictures with the "
            "VAE that belongs to it."
        )
    seen = model.model.process_latent_in(samples.float())
    described = described_spectrum(model)
    if described is not None and described.packing > 1:
        seen = torch.nn.functional.pixel_shuffle(seen, described.packing)
    law = fit(seen)
    count = len(samples)
    data = {"A": law.A, "beta": law.beta, "side": _side(seen.shape), "pictures": count}
    write_whole(_file(model), json.dumps(data, indent=1))
    few = f"; {ENOUGH} or more would be better" if count < ENOUGH else ""
    fitted = f"A {law.A:.4g}, beta {law.beta:.4g}"
    return f"the spectrum was fitted to {count} encoded pictures ({fitted}) and is kept{few}"


def stored_spectrum(model: Any, size: Sequence[int]) -> Spectrum | None:
    """What was fitted to encoded pictures for latents such as this model's, or None.

    Parameters
    ----------
    size
        Of the latent of a run, its height and width last.
    """
    path = _file(model)
    if not path.exists():
        return None
    described = described_spectrum(model)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        source = f"fitted to {int(data['pictures'])} encoded pictures here"
        packing = described.packing if described is not None else 1
        law = PowerLaw(float(data["A"]), float(data["beta"]))
        law = law.resized(_side(size) * packing / float(data["side"]))
        return Spectrum(law.A, law.beta, source, packing=packing)
    except (KeyError, TypeError, ValueError) as error:
        log.warning("The spectrum %s is ignored: %s", path.name, error)
        return None


def _side(shape: Sequence[int]) -> float:
    return math.sqrt(shape[-2] * shape[-1])


def _file(model: Any) -> Path:
    import folder_paths

    name = type(model.model.latent_format).__name__
    return Path(folder_paths.get_user_directory()) / "dit_acceleration" / f"spectrum_{name}.json"
