"""The corrector of a branch, with the parts of its latent apart where their noise differs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from .corrector import Corrector, LookBack
from .latent_parts import Stretch

Note = Callable[[Corrector, torch.Tensor, torch.Tensor | None], torch.Tensor]


class PartedCorrector:
    """One ``Corrector`` for every stretch of a latent whose noise is known.

    Without stretches all of the latent is one.

    Parameters
    ----------
    look_back
        Of the sampler; None where it does not.
    """

    def __init__(self, look_back: LookBack | None = None) -> None:
        self._look_back = look_back
        self._stretches: tuple[Stretch, ...] = ()
        self._correctors = [Corrector(look_back)]

    def skipped(
        self,
        sigma: float,
        target: float,
        denoised: torch.Tensor,
        x: torch.Tensor | None = None,
        stretches: Sequence[Stretch] = (),
    ) -> torch.Tensor:
        """As ``Corrector.skipped``; ``stretches`` lie along the last axis."""
        return self._each(
            lambda one, result, sample: one.skipped(sigma, target, result, sample),
            denoised,
            x,
            tuple(stretches),
        )

    def computed(
        self,
        sigma: float,
        target: float,
        denoised: torch.Tensor,
        x: torch.Tensor | None = None,
        stretches: Sequence[Stretch] = (),
    ) -> torch.Tensor:
        """As ``Corrector.computed``; ``stretches`` lie along the last axis."""
        return self._each(
            lambda one, result, sample: one.computed(sigma, target, result, sample),
            denoised,
            x,
            tuple(stretches),
        )

    def _each(
        self,
        note: Note,
        denoised: torch.Tensor,
        x: torch.Tensor | None,
        stretches: tuple[Stretch, ...],
    ) -> torch.Tensor:
        """What the sampler shall take; the very tensor that was given where no part changes."""
        self._aim(stretches)
        if not stretches:
            return note(self._correctors[0], denoised, x)
        lengths = [stretch.length for stretch in stretches]
        if x is None or x.shape != denoised.shape or sum(lengths) != denoised.shape[-1]:
            self.forget()  # another patch made another latent of it
            return denoised
        results = denoised.split(lengths, dim=-1)
        given = [
            note(one, result, sample) if stretch.known else result
            for one, stretch, result, sample in zip(
                self._correctors, stretches, results, x.split(lengths, dim=-1), strict=True
            )
        ]
        if all(one is other for one, other in zip(given, results, strict=True)):
            return denoised
        return torch.cat(given, dim=-1)

    def _aim(self, stretches: tuple[Stretch, ...]) -> None:
        """Begin anew where the latent or the noise of a part is another than before."""
        if stretches == self._stretches:
            return
        self._stretches = stretches
        noises = [stretch.noise for stretch in stretches] or [None]
        self._correctors = [Corrector(self._look_back, noise) for noise in noises]

    def forget(self) -> None:
        """Owe nothing and know nothing."""
        for corrector in self._correctors:
            corrector.forget()

    def tensors(self) -> list[torch.Tensor]:
        """Every tensor kept."""
        return [tensor for corrector in self._correctors for tensor in corrector.tensors()]
