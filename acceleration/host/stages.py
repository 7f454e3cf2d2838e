"""Where in a run an evaluation lies, when the network meets another latent than the sampler's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..schedule import Stage
from .levers import PREFIX

PROGRESSIVE_KEY = f"{PREFIX}.progressive"
"""Key of Progressive Resolution and of its run in ``transformer_options``."""
STAGE_KEY = f"{PREFIX}.stage"
"""Key of a ``Here`` in ``transformer_options``."""


@dataclass(frozen=True)
class Here:
    """Where the sampler is. The network is told other sigmas while its latent is small."""

    stage: Stage
    sigma: torch.Tensor
    """The sampler's, ``[B]``."""


def sampler_sigma(options: Mapping[str, Any]) -> torch.Tensor:
    """The sampler's sigma ``[B]`` of an evaluation's ``transformer_options``."""
    here: Here | None = options.get(STAGE_KEY)
    sigma: torch.Tensor = options["sigmas"] if here is None else here.sigma
    return sigma


def stage_of(options: Mapping[str, Any]) -> Stage | None:
    """The stage of an evaluation, None in a run of one."""
    here: Here | None = options.get(STAGE_KEY)
    return None if here is None else here.stage


def switch_of(options: Mapping[str, Any]) -> str:
    """At which sigma a run's full size begins, and why there; empty in a run of one size."""
    report = getattr(options.get(PROGRESSIVE_KEY), "report", None)
    return str(getattr(report, "switch", ""))


def gain_of(options: Mapping[str, Any]) -> float:
    """How many times faster a run is by small evaluations, as far as their sizes say."""
    run = options.get(PROGRESSIVE_KEY)
    return float(getattr(run, "gain", 1.0))
