"""Conditions of a sampling run for a network that is given a small latent.

The host makes a run's conditions for its latent: areas and masks, control pictures, references,
what a model makes of all that. Here it makes them once more for the small latent, from copies of
what it began with; the run's own are left alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..progressive import Corner, Kind, packed_size

Conds = dict[str, list[dict[str, Any]]]

HOSTS_OWN = ("mask", "model_conds", "uuid")
"""Parts of a condition that the host fits itself, or that have no size."""

REFERENCES = "reference_latents"

SCALES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""How many times as high as the latent a tensor may be that goes with it place by place: smaller
videos of poses, latents, packed latents laid out, pictures."""


class Idle:
    """Stands in for a ControlNet or for hooks while the host prepares conditions once more.

    Preparing sets them back to their beginning, which must not happen in mid-run.
    """

    multigpu_clones: dict[Any, Any] = {}  # noqa: RUF012
    hooks: tuple[Any, ...] = ()

    def __init__(self, real: Any) -> None:
        self.real = real

    def pre_run(self, *_: Any) -> None:
        """Nothing: it is prepared already."""


def small_conditions(
    model: Any,
    conds: Conds,
    corner: Corner,
    level: int,
    kind: Kind,
    noise: torch.Tensor,
    latent: torch.Tensor,
    mask: torch.Tensor | None,
    **more: Any,
) -> Conds:
    """The conditions of a run for its latent at a level.

    Parameters
    ----------
    model
        The host's BaseModel.
    conds
        As they were before the host prepared them.
    noise, latent
        The run's ``[B, C, …, H, W]``; the latent as the model sees it.
    mask
        The run's denoise mask, ``[B, 1, …, H, W]`` or None.
    more
        Further arguments of the host's ``process_conds`` that this host may know.
    """
    import comfy.samplers

    # The host's own defaults tell some models the size of the finished picture.
    defaults = {"width": noise.shape[3] * 8, "height": noise.shape[2] * 8}
    copies = {
        name: [defaults | _small(one, corner, level) for one in some]
        for name, some in conds.items()
    }
    known = inspect.signature(comfy.samplers.process_conds).parameters
    small_noise = corner.down(noise)
    if "latent_shapes" in known:
        more["latent_shapes"] = [small_noise.shape]
    found: Conds = comfy.samplers.process_conds(
        model,
        small_noise,
        copies,
        noise.device,
        latent_image=corner.low_pass(latent),
        denoise_mask=None if mask is None else _averaged(mask, corner.small),
        **more,
    )
    for some in found.values():
        for one in some:
            for name in [name for name, value in one.items() if isinstance(value, Idle)]:
                one[name] = one[name].real
            for name in ("timestep_start", "timestep_end"):
                if name in one:
                    one[name] = kind.matched(float(one[name]), corner.ratio)
    return found


def _small(cond: dict[str, Any], corner: Corner, level: int) -> dict[str, Any]:
    """A copy of a condition with everything that has the latent's size made small."""
    found = dict(cond)
    for name, value in cond.items():
        if name == "area":
            found[name] = small_area(value, corner.ratios)
        elif name in ("control", "hooks"):
            found[name] = Idle(value)
        elif name == REFERENCES:
            found[name] = [_reference(one, level, corner.packing) for one in value]
        elif name not in HOSTS_OWN:
            found[name] = _resized(name, value, corner)
    return found


def small_area(area: Any, ratios: tuple[float, float]) -> Any:
    """An area of a latent, ``(…, height, width, …, y, x)``; one in percent fits every size."""
    if area is None or isinstance(area[0], str):
        return area
    found, dims = list(area), len(area) // 2
    for axis, ratio in zip((dims - 2, dims - 1), ratios, strict=True):
        begin, end = area[dims + axis], area[dims + axis] + area[axis]
        found[dims + axis] = int(begin / ratio)
        found[axis] = max(-int(-end // ratio) - found[dims + axis], 1)
    return tuple(found)


def _reference(latent: torch.Tensor, level: int, packing: int) -> torch.Tensor:
    """A reference with as many fewer values as the latent, so that positions correspond."""
    if latent.ndim < 4:
        return latent
    size = (latent.shape[-2], latent.shape[-1])
    return Corner(size, packed_size(size, level, packing), packing).low_pass(latent)


def _resized(name: str, value: Any, corner: Corner) -> Any:
    """A value of a condition, with tensors that go with the latent made small."""
    if isinstance(value, list | tuple):
        return type(value)(_resized(name, one, corner) for one in value)
    if not isinstance(value, torch.Tensor) or value.ndim < 3 or not value.is_floating_point():
        return value
    size = (value.shape[-2], value.shape[-1])
    scale = size[0] / corner.size[0]
    small = tuple(int(side * scale) for side in corner.small)
    fits = all(side * scale == whole for side, whole in zip(corner.size, size, strict=True))
    if scale not in SCALES or not fits or not all(side * scale % 1 == 0 for side in corner.small):
        return value
    packs = corner.packing**2 if scale == 1 else 1
    if "mask" in name or (packs > 1 and (value.ndim < 4 or value.shape[-3] % packs)):
        return _averaged(value, small)
    packing = corner.packing if packs > 1 else 1
    return Corner(size, (small[0], small[1]), packing).low_pass(value)


def _averaged(mask: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """A mask as small: means of what falls together, which stay between 0 and 1."""
    flat = mask.reshape(-1, 1, *mask.shape[-2:]).float()
    small = torch.nn.functional.interpolate(flat, size, mode="area")
    return small.reshape(*mask.shape[:-2], *size).to(mask.dtype)


@contextmanager
def matched_ranges(conds: Conds, match: Callable[[float], float]) -> Iterator[None]:
    """ControlNets and hooks begin and end by the sigmas that the network is told."""
    kept: list[tuple[Any, str, Any]] = []
    try:
        for thing, name in _ranged(conds):
            value = getattr(thing, name, None)
            if value is None or any(thing is other for other, _, _ in kept):
                continue
            kept.append((thing, name, value))
            new = tuple(map(match, value)) if isinstance(value, tuple | list) else match(value)
            setattr(thing, name, new)
        yield
    finally:
        for thing, name, value in kept:
            setattr(thing, name, value)


def _ranged(conds: Conds) -> Iterator[tuple[Any, str]]:
    for one in (one for some in conds.values() for one in some):
        control = one.get("control")
        while control is not None:
            for each in (control, *getattr(control, "multigpu_clones", {}).values()):
                yield each, "timestep_range"
            control = getattr(control, "previous_controlnet", None)
        for hook in getattr(one.get("hooks"), "hooks", ()):
            for keyframe in getattr(getattr(hook, "hook_keyframe", None), "keyframes", ()):
                yield keyframe, "start_t"
