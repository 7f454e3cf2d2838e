"""Parts of a latent: which numbers they are, and that each is corrected by its own noise."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from dit_acceleration_pack.acceleration.corrector import Corrector
from dit_acceleration_pack.acceleration.families import FAMILIES, Family, LatentPart
from dit_acceleration_pack.acceleration.families.minimax import Shifted
from dit_acceleration_pack.acceleration.latent_parts import Noisy, Stretch, stretches_of, told
from dit_acceleration_pack.acceleration.parted_corrector import PartedCorrector

SHAPES = ((1, 4, 2, 3), (1, 2, 5))
SIZES = [24, 10]


class Network:
    sigma_shift_video = 12.0
    sigma_shift_audio = 3.0


def family(name: str) -> Family:
    return next(family for family in FAMILIES if family.name == name)


def noisy(*shapes: tuple[int, ...], **options: Any) -> Noisy:
    return Noisy(torch.zeros(2, 1, sum(math.prod(shape[1:]) for shape in shapes)), shapes, options)


@pytest.mark.parametrize("name", ["LTX-2", "TripoSplat"])
def test_parts_of_one_noise_are_one_latent(name: str) -> None:
    assert stretches_of(noisy(*SHAPES), family(name), Network()) == ()


@pytest.mark.parametrize("name", ["FLUX", "LTX-2", "MiniMax H3"])
def test_a_latent_that_is_one_tensor_has_no_parts(name: str) -> None:
    assert stretches_of(noisy(SHAPES[0]), family(name), Network()) == ()
    assert stretches_of(Noisy(torch.zeros(1, 4, 2, 3)), family(name), Network()) == ()
    assert stretches_of(None, family(name), Network()) == ()


def test_sound_of_minimax_has_the_noise_of_its_network() -> None:
    found = stretches_of(noisy(*SHAPES), family("MiniMax H3"), Network())
    assert found == (
        Stretch(("picture",), 24),
        Stretch(("sound",), 10, Shifted(12.0, 3.0)),
    )
    assert told(found) == (
        "the corrector works on picture by the sampler's sigmas, sound by own sigmas"
    )


def test_the_hosts_own_shifts_go_before_those_of_the_network() -> None:
    options = {"minimax_h3_sigma_shift_video": 8.0, "minimax_h3_sigma_shift_audio": 2.0}
    found = stretches_of(noisy(*SHAPES, **options), family("MiniMax H3"), Network())
    assert found[1].noise == Shifted(8.0, 2.0)


@pytest.mark.parametrize("known", [None, family("FLUX")], ids=["unknown family", "no parts told"])
def test_parts_that_nobody_described_are_left_alone(known: Family | None) -> None:
    found = stretches_of(noisy(*SHAPES, (1, 3, 2)), known, Network())
    assert found == (
        Stretch(("first part",), 24),
        Stretch(("part 2", "part 3"), 16, known=False),
    )
    assert told(found) == (
        "the corrector works on first part by the sampler's sigmas, "
        "part 2 and part 3 not, as their sigmas are not known"
    )


def test_a_latent_of_another_size_is_left_alone() -> None:
    found = stretches_of(Noisy(torch.zeros(1, 1, 30), SHAPES), family("LTX-2"), Network())
    assert found == (Stretch(("latent",), 30, known=False),)


def test_a_family_says_what_is_not_known() -> None:
    described = Family("x", (), (), parts=(LatentPart("a"), LatentPart("b", known=False)))
    found = stretches_of(noisy(*SHAPES), described, Network())
    assert [(stretch.names, stretch.known) for stretch in found] == [
        (("a",), True),
        (("b",), False),
    ]


# ---------------------------------------------------------------- correcting by parts

OWN = (Stretch(("picture",), 24), Stretch(("sound",), 10, Shifted(12.0, 3.0)))
STEPS = ((1.0, 0.95), (0.95, 0.9), (0.9, 0.8), (0.8, 0.6), (0.6, 0.3))
COMPUTED = {0, 2, 4}


def results(seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1, 1, 34, generator=generator) for _ in STEPS]


def noted(corrector: Any, denoised: list[torch.Tensor], *more: Any) -> list[torch.Tensor]:
    """What the sampler is given in every step; ``more`` are lists over the steps."""
    notes = [corrector.computed if i in COMPUTED else corrector.skipped for i in range(len(STEPS))]
    return [
        note(*step, result, *rest)
        for note, step, result, *rest in zip(notes, STEPS, denoised, *more, strict=True)
    ]


def test_every_part_is_corrected_as_it_would_be_alone() -> None:
    denoised, x = results(0), results(1)
    together = noted(PartedCorrector(), denoised, x, [OWN] * len(STEPS))
    for i, noise in enumerate((None, OWN[1].noise)):
        parts, samples = ([t.split(SIZES, -1)[i] for t in tensors] for tensors in (denoised, x))
        alone = noted(Corrector(noise=noise), parts, samples)
        for one, other in zip(together, alone, strict=True):
            assert torch.equal(one.split(SIZES, -1)[i], other)
    assert not torch.equal(together[-1], denoised[-1])


def test_what_is_not_known_is_given_as_it_is() -> None:
    denoised, x = results(0), results(1)
    left = (OWN[0], Stretch(("sound",), 10, known=False))
    for given, result in zip(
        noted(PartedCorrector(), denoised, x, [left] * len(STEPS)), denoised, strict=True
    ):
        assert torch.equal(given[..., 24:], result[..., 24:])
    given = noted(PartedCorrector(), denoised, x, [(Stretch(("latent",), 34, known=False),)] * 5)
    assert all(one is other for one, other in zip(given, denoised, strict=True))


def test_without_parts_it_is_the_corrector_of_before() -> None:
    denoised = results(0)
    for one, other in zip(
        noted(PartedCorrector(), denoised), noted(Corrector(), denoised), strict=True
    ):
        assert torch.equal(one, other)


def test_other_parts_than_before_begin_anew() -> None:
    denoised, x = results(0), results(1)
    given = noted(PartedCorrector(), denoised, x, [OWN] * 4 + [()])
    assert given[-1] is denoised[-1]


def test_a_result_of_another_size_owes_nothing() -> None:
    corrector, x = PartedCorrector(), torch.zeros(1, 1, 34)
    corrector.computed(1.0, 0.9, x, x, OWN)
    odd = torch.zeros(1, 1, 30)
    assert corrector.skipped(0.9, 0.8, odd, x, OWN) is odd
    assert corrector.tensors() == []


def test_forgetting_forgets_every_part() -> None:
    corrector = PartedCorrector()
    noted(corrector, results(0), results(1), [OWN] * len(STEPS))
    assert len(corrector.tensors()) == 2
    corrector.forget()
    assert corrector.tensors() == []
