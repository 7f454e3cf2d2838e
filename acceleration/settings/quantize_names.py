"""The names that cache-dit and SGLang-Diffusion give to what Quantize Model is asked for.

Names: cache-dit 1.5.3, ``QuantizeConfig``; SGLang-Diffusion 0.5.23, ``--quantization``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import AccelerationError, shown
from .cache_dit_names import Translation

TYPES = {
    "float8": "fp8",
    "fp8": "fp8",
    "float8_per_row": "fp8",
    "float8_per_tensor": "fp8",
    "float8_per_block": "fp8",
    "float8_weight_only": "fp8",
    "int8": "int8",
    "int8_per_row": "int8",
    "int8_per_tensor": "int8",
    "int8_weight_only": "int8",
    "convrot_int8": "int8",
    "mxfp8": "mxfp8",
    "nvfp4": "nvfp4",
    "nvfp4_weight_only": "nvfp4",
}
"""The libraries' types, and the precision that each is here."""

OTHERWISE = {
    "per_tensor": "fp8 and int8 have a scale a row here",
    "per_block": "fp8 has a scale a row here; mxfp8 has one a block",
    "weight_only": "activations are rounded, too, where the device computes in the format",
}
"""What a type asks for by the end of its name and does not get."""

TYPE_KEYS = ("quant_type", "quantization")

WITHOUT_EFFECT = {
    "backend": "ComfyUI's own kernels compute",
    "regional_quantize": "layers within the blocks are always what is quantized",
    "repeated_blocks": "the blocks of a model are known or found",
    "filter_fn": "name layers in keep",
    "components_to_quantize": "a node is for one model; text encoders stay as they are",
    "per_tensor_fallback": "what has no kernel only saves memory",
    "precision_plan": "choose mixed, which measures every layer",
    "calibrate_fn": "the node samples a few steps itself",
    "serialize_to": "nothing is written",
    "svdq_kwargs": "there is no SVDQuant here",
    "verbose": "the report names every layer",
}

ALIASES = (*TYPE_KEYS, "exclude_layers", *WITHOUT_EFFECT)


def translate(given: Mapping[str, Any]) -> Translation:
    """Turn the libraries' keys into our fields.

    Raises
    ------
    AccelerationError
        When they contradict each other.
    """
    rest, done = dict(given), Translation({})
    for key in TYPE_KEYS:
        if key in rest:
            _type(key, rest.pop(key), rest, done)
    if "exclude_layers" in rest:
        _excluded(rest.pop("exclude_layers"), rest, done)
    for key, why in WITHOUT_EFFECT.items():
        value = rest.pop(key, None)
        if value is not None:
            done.notices.append(f"{key} {shown(value)} has no effect here: {why}")
    done.values.update(rest)
    return done


def _type(key: str, wanted: Any, rest: Mapping[str, Any], done: Translation) -> None:
    found = TYPES.get(wanted.lower()) if isinstance(wanted, str) else None
    if wanted is None:
        return
    if found is None:
        done.notices.append(
            f"{key} {shown(wanted)} has no effect here: there is no such format; choose precision"
        )
        return
    if rest.get("precision", found) != found or done.values.get("precision", found) != found:
        raise AccelerationError(
            f"{key} is {shown(wanted)} and precision {shown(rest.get('precision'))}: give one."
        )
    done.values["precision"], done.keys["precision"] = found, key
    for end, why in OTHERWISE.items():
        if str(wanted).lower().endswith(end):
            done.notices.append(f"{key} {shown(wanted)}: {why}")


def _excluded(layers: Any, rest: Mapping[str, Any], done: Translation) -> None:
    if not isinstance(layers, list) or not all(isinstance(name, str) for name in layers):
        raise AccelerationError(
            f"exclude_layers is {shown(layers)}: it must be a list of parts of names."
        )
    if "keep" in rest:
        raise AccelerationError("exclude_layers and keep are both given: give one.")
    # The library looks for these anywhere in a name.
    done.values["keep"] = ", ".join(f"*{name}*" for name in layers)
    done.keys["keep"] = "exclude_layers"
