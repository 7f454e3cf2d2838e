"""The names that cache-dit and SGLang-Diffusion give to what our fields hold.

Files written for them load here: their switches and aliases are turned into our fields, and what
has no meaning in ComfyUI is named in a notice. Field names: cache-dit 1.5.3, ``DBCacheConfig`` and
``load_configs``; environment variables: SGLang-Diffusion's ``SGLANG_CACHE_DIT_…``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import AccelerationError, shown

SWITCHES = {"enable_taylorseer": "taylorseer", "enable_foca": "foca", "enable_dmd": "dmd"}
"""The library's switches, and the calibrator that each turns on."""

SHORT_NAMES = {
    "Fn_compute_blocks": "FN",
    "Bn_compute_blocks": "BN",
    "max_warmup_steps": "WARMUP",
    "residual_diff_threshold": "RDT",
    "max_continuous_cached_steps": "MC",
    "enable_taylorseer": "TAYLORSEER",
    "taylorseer_order": "TS_ORDER",
}

_BY_ITSELF = {
    "enable_separate_cfg": "positive and negative prompt are always told apart",
    "cfg_compute_first": "positive and negative prompt are always told apart",
    "num_inference_steps": "the number of steps is read from the sampler",
}
"""Keys of the library for what this pack finds out by itself, and how."""

ALIASES = ("cache_type", "steps_computation_mask", "steps_computation_policy", *_BY_ITSELF)
"""Keys of the library's files that are no fields of ours."""

ATTENTION = {
    "native": "sdpa",
    "_native_cudnn": "sdpa_cudnn",
    "_native_efficient": "sdpa_efficient",
    "_native_flash": "sdpa_flash",
    "_native_math": "sdpa_math",
    "xformers": "xformers",
    "flash": "flash",
    "_flash_3": "flash3",
    "sage": "sage",
}
"""The library's attention backends (the names of diffusers 0.36) and ours."""

ELSEWHERE = {
    "parallelism_config": "for several GPUs, use ComfyUI's node MultiGPU CFG Split",
    "quantize_config": "load a quantized checkpoint instead",
}
"""Sections of the library's files that this pack does not act on, and what to do instead."""


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
    if rest.pop("cache_type", "DBCache") != "DBCache":
        raise AccelerationError(f"cache_type is {shown(given['cache_type'])}: it must be DBCache.")
    _calibrator(rest, done)
    if "steps_computation_policy" in rest:
        policy = rest.pop("steps_computation_policy")
        if policy not in ("dynamic", "static"):
            raise AccelerationError(
                f"steps_computation_policy is {shown(policy)}: choose one of dynamic, static."
            )
        _alias(done, rest, "scm_policy", policy, "steps_computation_policy")
    if "steps_computation_mask" in rest:
        for name, value in _mask(rest.pop("steps_computation_mask")).items():
            _alias(done, rest, name, value, "steps_computation_mask")
    for key, how in _BY_ITSELF.items():
        if key in rest:
            done.notices.append(f"{key} {shown(rest.pop(key))} has no effect here: {how}")
    done.values.update(rest)
    return done


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


def with_attention(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """A file's data, with the attention backend of ``parallelism_config`` in its own section.

    There it has a meaning here. A backend that ``attention_config`` names itself wins; one that is
    not known here stays where it is, and is named among what has no effect.
    """
    parallel, own = data.get("parallelism_config"), data.get("attention_config", {})
    if not isinstance(parallel, Mapping) or not isinstance(own, Mapping) or "backend" in own:
        return data
    kwargs = parallel.get("parallel_kwargs")
    if not isinstance(kwargs, Mapping):
        return data
    wanted = kwargs.get("attention_backend")
    backend = ATTENTION.get(wanted) if isinstance(wanted, str) else None
    if backend is None:
        return data
    rest = {key: value for key, value in kwargs.items() if key != "attention_backend"}
    return {
        **data,
        "parallelism_config": {**parallel, "parallel_kwargs": rest},
        "attention_config": {**own, "backend": backend},
    }


def without_effect(file: str, section: str, part: Any) -> list[str]:
    """A notice that names every key of a section that this pack does not act on."""
    if not isinstance(part, Mapping):
        raise AccelerationError(
            f"file {file}, {section}: it is {shown(part)}, but must hold keys and values."
        )
    named = ", ".join(f"{key} {shown(value)}" for key, value in _leaves(part))
    if not named:
        return []
    return [f"file {file}, {section}: no effect here of {named}; {ELSEWHERE[section]}"]


def _leaves(part: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Keys and values, with those of a group one level down under ``group.key``."""
    found: list[tuple[str, Any]] = []
    for key, value in part.items():
        if isinstance(value, Mapping):
            found += [(f"{key}.{inner}", one) for inner, one in value.items()]
        else:
            found.append((key, value))
    return found
