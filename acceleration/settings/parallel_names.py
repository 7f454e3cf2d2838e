"""The names that cache-dit gives to what our fields for several GPUs hold.

``ParallelismConfig`` of cache-dit 1.5.3, as its files and SGLang-Diffusion's have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import AccelerationError, shown
from .cache_dit_names import Translation

ULYSSES, RING, WORKERS = "ulysses_size", "ring_size", "ray_num_workers"

_WITHOUT_EFFECT = {
    "tp_size": "tensor parallelism is not there, as every GPU holds the whole model",
    **dict.fromkeys(
        ("ulysses_float8", "ulysses_float8_scale"), "what GPUs exchange is not rounded to fp8"
    ),
    "ulysses_async": "exchanges are not laid over other work",
    **dict.fromkeys(
        ("ulysses_anything", "ring_rotate_method"), "uneven numbers of tokens and heads always work"
    ),
    "extra_parallel_modules": "text encoders and VAE stay with ComfyUI (Select CLIP Device and "
    "Select VAE Device give them a GPU)",
    "attention_backend": "what counts is backend in attention_config",
    "backend": "blocks are split by this pack itself",
    "use_ray": "the node Split Across GPUs starts Ray by itself",
}

_OF_RAY = (
    *("runtime_env", "init_kwargs", "worker_options", "master_port", "auto_shutdown"),
    *("transfer_backend", "transfer_custom_obj", "use_flashpack", "use_compile", "transfer_fn"),
)

ALIASES = (
    *(ULYSSES, RING, WORKERS, "parallel_kwargs", "extra_parallel_kwargs", "cp_plan"),
    "ring_convert_to_fp32",
    *_WITHOUT_EFFECT,
    *(f"ray_{name}" for name in _OF_RAY),
)
"""Keys of the library's files that are no fields of ours."""


def translate(given: Mapping[str, Any]) -> Translation:
    """Turn the library's sizes into our fields, and say what has no effect.

    Raises
    ------
    AccelerationError
        For a size that is none.
    """
    own = {key: value for key, value in given.items() if key not in ALIASES}
    rest = {key: value for key, value in given.items() if key in ALIASES and value is not None}
    done = Translation(own)
    ulysses, ring = _size(rest, ULYSSES), _size(rest, RING)
    workers = _size(rest, WORKERS)
    if ulysses != 1 or ring != 1:
        _put(done, "split", "sequence", ULYSSES if ulysses != 1 else RING)
        _put(done, "exchange", "ulysses" if ulysses != 1 else "keys", ULYSSES)
        # "auto" takes what the other sizes leave: all GPUs that there are.
        gpus = 0 if 0 in (ulysses, ring) else ulysses * ring
        _put(done, "gpus", workers if workers > 1 else gpus, ULYSSES)
    elif workers > 1:
        _put(done, "gpus", workers, WORKERS)
    if ring != 1:
        done.notices.append(
            f"{RING} {shown(given[RING])}: there is no ring, and "
            + (
                "ulysses over all of them takes its place"
                if ulysses != 1
                else "keys and values are gathered instead, which sends as much (exchange keys)"
            )
        )
    kwargs = rest.pop("parallel_kwargs", {})
    if not isinstance(kwargs, Mapping):
        raise AccelerationError(
            f"parallel_kwargs is {shown(kwargs)}, but must hold keys and values."
        )
    for key, value in (rest | dict(kwargs)).items():
        if key not in (ULYSSES, RING, WORKERS) and value is not False:
            why = _WITHOUT_EFFECT.get(key, "this pack does not have it")
            done.notices.append(f"no effect here of {key} {shown(value)}: {why}")
    return done


def _size(given: Mapping[str, Any], key: str) -> int:
    """A number of GPUs; 0 for auto, 1 where it is not given."""
    value = given.get(key, 1)
    if value == "auto":
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 64:
        raise AccelerationError(
            f"{key} is {shown(value)}: it must be auto, or a number of GPUs from 1 to 64."
        )
    return value


def _put(done: Translation, name: str, value: Any, key: str) -> None:
    """A field that the file does not give by its own name."""
    if name not in done.values:
        done.values[name] = value
        done.keys[name] = key
