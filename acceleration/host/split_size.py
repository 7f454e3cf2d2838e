"""Whether a picture or video is large enough for several GPUs, asked before anything is started.

What is known then is the latent; how the host puts its conds into batches is not, so this refuses
only what fails however it does. The ranks ask again, of the tokens that they are given.
"""

from __future__ import annotations

from typing import Any

import torch

from ..families import Structure, describe
from ..families.tokens import Frames
from ..parallel import plan, require_enough
from .levers import argument
from .memory import expected_branches, latent_tokens
from .wrapping import Sampling


def require_enough_tokens(split: str, size: int, sampling: Sampling) -> None:
    """Refuse a latent that has fewer tokens, or frames with a time of their own, than GPUs that
    would share them.

    Parameters
    ----------
    split
        As in ``ParallelSettings``, of a network whose tokens can be split.
    size
        How many GPUs.

    Raises
    ------
    AccelerationError
        With how many there are.
    """
    model, noise = sampling.patcher.model, argument(sampling.args, sampling.kwargs, 0, "noise")
    structure = describe(model.diffusion_model)
    if structure is None or noise.ndim < 4:
        return  # Several latents packed into one tensor: nobody knows yet.
    tokens = latent_tokens(structure.family, model.diffusion_model, noise.shape)
    frames = _own_times(structure, sampling, noise) if _keeps_frames(structure) else 0
    together = range(1, expected_branches(sampling.guider) + 1)
    fewest = min(_sharing(split, size, noise.shape[0], conds) for conds in together)
    require_enough(fewest, tokens, frames)


def _sharing(split: str, size: int, batch: int, conds: int) -> int:
    """How many GPUs share tokens where so many conds are evaluated together."""
    return max(map(len, plan(split, size, batch * conds, conds).teams))


def _keeps_frames(structure: Structure) -> bool:
    plans = structure.family.split.values()
    return any(isinstance(rule, Frames) for each in plans for rule in each.rules)


def _own_times(structure: Structure, sampling: Sampling, noise: torch.Tensor) -> int:
    """How many frames have a time of their own, by what the host makes of the noise mask; 0 where
    all have the same."""
    mask = argument(sampling.args, sampling.kwargs, 4, "denoise_mask")
    if mask is None:
        return 0
    import comfy.sampler_helpers

    whole = comfy.sampler_helpers.prepare_mask(mask, noise.shape, "cpu")
    one = torch.ones(noise.shape[0])
    times: Any = sampling.patcher.model.process_timestep(one, x=noise, denoise_mask=whole)
    return int(times.shape[1]) if times.ndim > 1 and times.shape[1] > 1 else 0
