"""The names that cache-dit and SGLang-Diffusion give to what our fields hold.

Files written for them load here: their switches and aliases are turned into our fields, and what
has no meaning in ComfyUI is named in a notice. Field names: cache-dit 1.5.3, ``DBCacheConfig``,
``DBPruneConfig``, the calibrator configs and ``load_configs``, and what its published files were
called by before; environment variables: SGLang-Diffusion's ``SGLANG_CACHE_DIT_…``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import AccelerationError, shown

SWITCHES = {"enable_taylorseer": "taylorseer", "enable_foca": "foca", "enable_dmd": "dmd"}
"""The library's switches, and the calibrator that each turns on."""

INSTEAD = {"foca": "taylorseer", "dmd": "taylorseer"}
"""Calibrators of the library that are none of ours, and what takes their place: on the demo model
FoCa was farther from the plain picture than holding the last residual, and DMD no nearer."""

SHORT_NAMES = {
    "Fn_compute_blocks": "FN",
    "Bn_compute_blocks": "BN",
    "max_warmup_steps": "WARMUP",
    "residual_diff_threshold": "RDT",
    "max_continuous_cached_steps": "MC",
    "enable_taylorseer": "TAYLORSEER",
    "taylorseer_order": "TS_ORDER",
}

RENAMED = {
    "warmup_steps": "max_warmup_steps",
    "max_continous_cached_steps": "max_continuous_cached_steps",
}
"""Names in older files of the library, and today's."""

_TOLD_APART = "positive and negative prompt are always told apart"
_EVERY_STREAM = "all that skipped blocks would have returned is forecast alike"
_RESIDUALS = "it is always residuals that are forecast"
_DMD = "there is no dmd here"
_NO_REFRESH = "nothing is refreshed in the middle of a run"
_NO_PRUNING = "single blocks are not pruned"

_WITHOUT_EFFECT = {
    **dict.fromkeys(
        (
            "enable_separate_cfg",
            # As the library's guide and an example of it spell it.
            "enable_sperate_cfg",
            "enable_seperate_cfg",
            "cfg_compute_first",
            "cfg_diff_compute_separate",
        ),
        _TOLD_APART,
    ),
    "num_inference_steps": "the number of steps is read from the sampler",
    "max_accumulated_residual_diff_threshold": "changes are not added up, each is compared with "
    "residual_diff_threshold",
    **dict.fromkeys(("force_refresh_step_hint", "force_refresh_step_policy"), _NO_REFRESH),
    **dict.fromkeys(
        (
            "enable_encoder_calibrator",
            "enable_encoder_taylorseer",
            "enable_encoder_foca",
            "enable_encoder_dmd",
        ),
        _EVERY_STREAM,
    ),
    **dict.fromkeys(("calibrator_cache_type", "taylorseer_cache_type"), _RESIDUALS),
    **dict.fromkeys(("dmd_history", "dmd_rank", "dmd_ridge", "dmd_svd_precision"), _DMD),
    "calibrator_kwargs": "calibrators run with the library's own figures",
    **dict.fromkeys(
        (
            "enable_dynamic_prune_threshold",
            "max_dynamic_prune_threshold",
            "dynamic_prune_threshold_relax_ratio",
            "non_prune_block_ids",
            "force_reduce_calibrator_vram",
        ),
        _NO_PRUNING,
    ),
}
"""Keys of the library for what this pack finds out by itself or does not do, and why."""

ALIASES = (
    "cache_type",
    "steps_computation_mask",
    "steps_computation_policy",
    "enable_calibrator",
    "calibrator_type",
    "taylorseer_kwargs",
    *_WITHOUT_EFFECT,
)
"""Keys of the library's files that are no fields of ours."""


@dataclass(frozen=True)
class Translation:
    """Fields of our settings."""

    values: dict[str, Any]
    keys: dict[str, str] = field(default_factory=dict)
    """The key that a field was given by, where it has another name."""
    notices: list[str] = field(default_factory=list)


def translate(given: Mapping[str, Any]) -> Translation:
    """Turn the library's switches and aliases into our fields.

    Raises
    ------
    AccelerationError
        When they contradict each other, or ask for a technique that is not there.
    """
    rest, done = dict(given), Translation({})
    _cache_type(rest, done)
    _calibrator_by_name(rest)
    _calibrator(rest, done)
    _instead(rest, done)
    if "taylorseer_kwargs" in rest:
        order = _order(rest.pop("taylorseer_kwargs"))
        _alias(done, rest, "taylorseer_order", order, "taylorseer_kwargs")
    if "steps_computation_policy" in rest:
        policy = rest.pop("steps_computation_policy")
        if policy not in ("dynamic", "static"):
            raise AccelerationError(
                f"steps_computation_policy is {shown(policy)}: choose one of dynamic, static."
            )
        _alias(done, rest, "scm_policy", policy, "steps_computation_policy")
    mask = rest.pop("steps_computation_mask", None)
    if mask is not None:
        for name, value in _mask(mask).items():
            _alias(done, rest, name, value, "steps_computation_mask")
    for key, why in _WITHOUT_EFFECT.items():
        value = rest.pop(key, None)
        if value is not None:
            done.notices.append(f"{key} {shown(value)} has no effect here: {why}")
    done.values.update(rest)
    return done


def _cache_type(rest: dict[str, Any], done: Translation) -> None:
    """DBCache is what there is; the library's other technique has the same keys beside its own."""
    kind = rest.pop("cache_type", "DBCache")
    if kind == "DBPrune":
        done.notices.append(
            "cache_type 'DBPrune' has no effect here: single blocks are not pruned, DBCache takes "
            "the values that both have"
        )
    elif kind != "DBCache":
        raise AccelerationError(
            f"cache_type is {shown(kind)}: choose DBCache, or DBPrune, in whose place DBCache acts."
        )


def _calibrator_by_name(rest: dict[str, Any]) -> None:
    """``enable_calibrator`` and ``calibrator_type`` as the library's switch for that calibrator.

    Without a type the library's is taylorseer.
    """
    if "enable_calibrator" not in rest and "calibrator_type" not in rest:
        return
    on, kind = rest.pop("enable_calibrator", True), rest.pop("calibrator_type", "taylorseer")
    if not isinstance(on, bool):
        raise AccelerationError(f"enable_calibrator is {shown(on)}: it must be true or false.")
    switch = next((key for key, name in SWITCHES.items() if name == kind), None)
    if switch is None:
        raise AccelerationError(
            f"calibrator_type is {shown(kind)}: choose one of {', '.join(SWITCHES.values())}."
        )
    if rest.get(switch, on) is not on:
        raise AccelerationError(
            f"{switch} is {shown(rest[switch])} and enable_calibrator {shown(on)}: give one of "
            "them."
        )
    rest[switch] = on


def _order(kwargs: Any) -> int:
    """The order in ``taylorseer_kwargs``, where older files have it as ``n_derivatives``."""
    order = kwargs.get("n_derivatives", 1) if isinstance(kwargs, Mapping) else None
    if not isinstance(kwargs, Mapping) or set(kwargs) - {"n_derivatives"} or type(order) is not int:
        raise AccelerationError(
            f"taylorseer_kwargs is {shown(kwargs)}: it holds n_derivatives, 1 or 2; today it is "
            "taylorseer_order."
        )
    return order


def _calibrator(rest: dict[str, Any], done: Translation) -> None:
    """``enable_taylorseer`` and its like are one choice among calibrators."""
    switched = {key: rest.pop(key) for key in SWITCHES if key in rest}
    on = [key for key, value in switched.items() if value]
    named = rest.get("calibrator")
    wanted = {SWITCHES[key] for key in on} | ({named} if named is not None else set())
    off = [key for key, value in switched.items() if not value and SWITCHES[key] == named]
    if len(wanted) > 1 or off:
        said = [f"{key} is {str(value).lower()}" for key, value in switched.items()]
        said += [f"calibrator is {shown(named)}"] if named is not None else []
        raise AccelerationError(
            f"{' and '.join(said)}: a residual has one forecast, so choose one of them."
        )
    if switched and named is None:
        key = (on or list(switched))[0]
        _alias(done, rest, "calibrator", SWITCHES[key] if on else "none", key)


def _instead(rest: dict[str, Any], done: Translation) -> None:
    """Put one of our calibrators in the place of one that we lack."""
    for values in (done.values, rest):
        kind = values.get("calibrator")
        if isinstance(kind, str) and kind in INSTEAD:
            values["calibrator"] = INSTEAD[kind]
            done.notices.append(
                f"there is no calibrator {kind} here: {INSTEAD[kind]} takes its place"
            )


def _alias(done: Translation, rest: dict[str, Any], name: str, value: Any, key: str) -> None:
    if rest.get(name, value) != value:
        raise AccelerationError(
            f"{key} asks for {name} {shown(value)}, and {name} is {shown(rest[name])}: give one of "
            "them."
        )
    done.values[name] = value
    done.keys[name] = key


def _mask(mask: Any) -> dict[str, str]:
    """A step computation mask, given as the name of a preset or as a list of 0 and 1."""
    if isinstance(mask, str):
        return {"scm_preset": mask}
    plain = isinstance(mask, list) and all(type(step) is int and step in (0, 1) for step in mask)
    if not plain or not mask or not mask[0]:
        raise AccelerationError(
            f"steps_computation_mask is {shown(mask)}: give the name of a preset, or a list of 0 "
            "and 1 that begins with 1."
        )
    runs: list[list[int]] = []
    for step in mask:
        if runs and runs[-1][0] == step:
            runs[-1][1] += 1
        else:
            runs.append([step, 1])
    bins = {on: ",".join(str(length) for step, length in runs if step == on) for on in (1, 0)}
    if not bins[0]:
        raise AccelerationError(
            "steps_computation_mask has no 0, so nothing could be skipped: leave it out."
        )
    return {"scm_compute_bins": bins[1], "scm_cache_bins": bins[0]}


def switches_for(values: Mapping[str, Any]) -> dict[str, bool]:
    """The library's own switch for a calibrator, so that our files load there as well."""
    return {key: True for key, kind in SWITCHES.items() if values["calibrator"] == kind}
