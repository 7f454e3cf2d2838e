"""The twin: another model of the same kind, in which some layers are quantized.

A change of the model in place would be seen by everybody who holds it. The twin has modules of its
own and shares every tensor that is not quantized. All else (LoRAs after it, streaming of weights,
devices) stays the host's business.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import AccelerationError
from ..quantize import Plan
from ..quantize.report import NAME
from .model import network_of

PREFIX = "diffusion_model."
"""Of the network's keys in a MODEL's patches."""

NOT_SAVED = (
    f"{NAME}: smoothed int8 and fp8 with a scale a row have no place in ComfyUI's files, so this "
    "model cannot be saved. Save the model before this node, or choose mxfp8 or nvfp4."
)


def refuse_model(model: Any) -> None:
    """Raise AccelerationError for a model that is quantized already, or cannot have a twin."""
    network = network_of(model)
    if network is None:
        raise AccelerationError(f"{NAME}: this MODEL holds no network; connect a model loader.")
    if next(network.parameters(), None) is None:
        raise AccelerationError(
            f"{NAME}: this MODEL holds no weights, as Split Across GPUs has them in other "
            "processes, and quantized ones cannot travel there yet: use one of the two."
        )
    for tensor in network.parameters():
        kinds = " ".join(kind.__name__ for kind in type(tensor).__mro__)
        if "GGML" in kinds:
            raise AccelerationError(
                f"{NAME}: this model is GGUF, which is quantized already. Load the original "
                "safetensors file instead, or leave this node out."
            )
        if "QuantizedTensor" in kinds or tensor.dtype.itemsize == 1:
            kind = getattr(tensor, "_layout_cls", str(tensor.dtype).removeprefix("torch."))
            raise AccelerationError(
                f"{NAME}: this model is quantized already ({kind}). Load it with weight_dtype "
                "default from its original file, or leave this node out."
            )
    replaced = [key for key in model.object_patches if key.startswith("diffusion_model")]
    if replaced:
        raise AccelerationError(
            f"{NAME}: another node has replaced parts of this model ({replaced[0]}). Put Quantize "
            "Model before it, right after the loader and the LoRAs."
        )
    if model.get_additional_models_with_key("multigpu"):
        raise AccelerationError(
            f"{NAME}: this model is on several GPUs already. Put Quantize Model before the node "
            "that splits it."
        )


def weight_of(model: Any, path: str, fold: bool) -> torch.Tensor:
    """The weight of a layer as it came from the file, with its LoRAs if they are to be folded in.

    A loaded MODEL may have been patched in place; the host then has the original in its backup.
    """
    import comfy.lora
    import comfy.model_management as management

    key = f"{PREFIX}{path}.weight"
    backup = model.backup.get(key)
    if backup is not None:
        weight = backup.weight
    else:
        weight = model.model.diffusion_model.get_submodule(path).weight.data
    patches = model.patches.get(key) if fold else None
    device = management.get_torch_device() if model.load_device.type != "cpu" else weight.device
    weight = weight.to(device)
    if patches:
        weight = comfy.lora.calculate_weight(patches, weight.float().clone(), key)
    return weight


def _empty_twin(model: Any) -> Any:
    """A model of the same class without weights.

    Config classes of the host answer every attribute with None, so that copying them by
    ``copy.copy`` fails.
    """
    old = model.model
    config = object.__new__(type(old.model_config))
    config.__dict__.update(old.model_config.__dict__)
    config.unet_config = dict(config.unet_config)
    saved = old.state_dict_for_saving(dict(old.diffusion_model.state_dict()))
    return config.get_model(saved, "model.diffusion_model.", device=torch.device("cpu"))


def _shared_tensors(model: Any, without: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The network's tensors as they came from the file, but for weights that are not wanted."""
    found = dict(model.model.diffusion_model.state_dict())
    for key, backup in model.backup.items():
        name = key.removeprefix(PREFIX)
        if name in found:
            found[name] = backup.weight
    return {k: v for k, v in found.items() if k.removesuffix(".weight") not in without}


@dataclass(frozen=True)
class Recipe:
    """How a twin is made of a model, now and whenever the host loads the model anew."""

    plan: Plan
    fold: bool
    """Whether LoRAs become part of the weights."""
    exact: frozenset[str]
    """Formats with which activations stay as they are."""

    @property
    def folded(self) -> set[str]:
        """Keys of the weights into which LoRAs are folded."""
        return {f"{PREFIX}{path}.weight" for path in self.plan} if self.fold else set()


def make_twin(model: Any, recipe: Recipe, done: Callable[[int], None] = lambda _: None) -> Any:
    """The host's model with the layers of a plan quantized, on the device for unused models.

    Parameters
    ----------
    done
        Told how many layers are ready; may raise what Cancel raises.
    """
    from .quantize_layouts import can_be_saved, quantized, quantized_layer

    twin, plan = _empty_twin(model), recipe.plan
    network = twin.diffusion_model
    network.load_state_dict(_shared_tensors(model, plan), strict=False, assign=True)
    dtype = model.model.get_dtype_inference()
    for count, (path, choice) in enumerate(plan.items()):
        weight = quantized(weight_of(model, path, recipe.fold), choice, dtype)
        weight = weight.to(device=model.offload_device)
        owner, _, name = path.rpartition(".")
        old = network.get_submodule(path)
        layer = quantized_layer(old, weight, choice, dtype, choice.format in recipe.exact)
        setattr(network.get_submodule(owner), name, layer)
        done(count + 1)
    network.requires_grad_(False)
    network.eval()
    if not all(map(can_be_saved, plan.values())):
        twin.state_dict_for_saving = _refuse_saving
    return twin


def _refuse_saving(*_: Any, **__: Any) -> Any:
    raise AccelerationError(NOT_SAVED)


def with_twin(model: Any, twin: Any, recipe: Recipe) -> Any:
    """A clone of a MODEL that holds the twin; LoRAs that were folded in are no patches of it."""
    from comfy.hooks import EnumHookMode

    made = model.clone(model_override=(twin, ({}, {}, {}, set())))
    made.size = 0
    made.hook_backup = {}
    made.cached_hook_patches = {}
    # The host's other mode keeps hooked weights in full, and cannot put them into quantized ones.
    made.hook_mode = EnumHookMode.MinVram
    made.clone_base_uuid = uuid.uuid4()
    if folded := recipe.folded & set(made.patches):
        made.patches = {k: v for k, v in made.patches.items() if k not in folded}
        made.patches_uuid = uuid.uuid4()
    # The host loads a model anew for another device: without this it would be the plain one.
    if model.cached_patcher_init is not None:
        made.cached_patcher_init = (
            _loaded_anew,
            (model.cached_patcher_init, model.patches, recipe),
        )
    return made


def _loaded_anew(init: Any, patches: Any, recipe: Recipe, **options: Any) -> Any:
    """The quantized MODEL of one that the host's loader gives; see ``cached_patcher_init``."""
    model = init[0](*init[1], **options)
    if len(init) > 2:
        model = model[init[2]]
    model.patches = {key: list(some) for key, some in patches.items()}
    return with_twin(model, make_twin(model, recipe), recipe)
