"""A network that is somewhere else: what stands in a MODEL in its place."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch

from ..errors import AccelerationError
from .levers import PREFIX

SPLIT_KEY = f"{PREFIX}.split"
"""Key of the lever and of its run in ``transformer_options``."""


class FarNetwork(torch.nn.Module):
    """Has no weights and hands its calls on, to the run that stands in the call's options.

    What the host asks a network (patch sizes, names of weights) it answers as the network would, by
    a skeleton of it on the meta device.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        # In the instance's dict, so that it does not count as a part of the model.
        self.__dict__["_orig_mod"] = skeleton(network)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_orig_mod"], name)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Of the skeleton: what can be patched has its names from here."""
        return self._orig_mod.state_dict(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers

        options = kwargs.get("transformer_options") or {}
        executor = WrapperExecutor.new_class_executor(
            self._hand_on, self, get_all_wrappers(WrappersMP.DIFFUSION_MODEL, options)
        )
        return executor.execute(*args, **kwargs)

    @staticmethod
    def _hand_on(*args: Any, **kwargs: Any) -> Any:
        run = (kwargs.get("transformer_options") or {}).get(SPLIT_KEY)
        if run is None:
            raise AccelerationError(
                "a model that is split across GPUs was called outside of sampling, or by a guider "
                "that samples with another MODEL: put Split Across GPUs on the MODEL that the "
                "sampler gets."
            )
        return run.evaluate(args, kwargs)


def skeleton(module: torch.nn.Module) -> torch.nn.Module:
    """A module's like without its weights: same classes, names, shapes and plain attributes."""
    made: dict[int, torch.nn.Module] = {}

    def like(one: torch.nn.Module) -> torch.nn.Module:
        if id(one) not in made:
            new = made[id(one)] = one.__class__.__new__(one.__class__)
            new.__dict__ = {**vars(one)}
            new.__dict__["_parameters"] = {n: _shape(p) for n, p in one._parameters.items()}
            new.__dict__["_buffers"] = {n: _shape(b) for n, b in one._buffers.items()}
            new.__dict__["_modules"] = {
                n: None if m is None else like(m) for n, m in one._modules.items()
            }
        return made[id(one)]

    return like(module)


def _shape(tensor: Any) -> Any:
    if tensor is None:
        return None
    empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
    if isinstance(tensor, torch.nn.Parameter):
        return torch.nn.Parameter(empty, requires_grad=False)
    return empty


ROWS_EACH = 2
"""Rows of a batch that a GPU evaluates without the host asking whether they fit."""


def far_model(model: Any, gpus: int) -> Any:
    """A clone of a MODEL that holds no weights; its network is handed every call."""
    shell = copy.copy(model.model)
    shell.__dict__["_modules"] = {
        **model.model._modules,
        "diffusion_model": FarNetwork(model.model.diffusion_model),
    }
    # What the host notes on a model whose weights it has moved or patched.
    for name, value in (
        ("model_loaded_weight_memory", 0),
        ("model_offload_buffer_memory", 0),
        ("model_lowvram", False),
        ("lowvram_patch_counter", 0),
        ("current_weight_patches_uuid", None),
        ("current_patcher", None),
    ):
        shell.__dict__[name] = value
    far = model.clone(disable_dynamic=True, model_override=(shell, ({}, {}, {}, set())))
    shell.__dict__["memory_required"] = _shared_need(shell.memory_required, gpus)
    far.size = 1
    # It would keep the weights in this process.
    far.parent = None
    return far


def _shared_need(whole: Callable[..., Any], gpus: int) -> Callable[..., Any]:
    """What an evaluation needs of memory, for the host's decision how many conds go together.

    They do not need this process's memory, which a rank's weights may have filled, and evaluated
    apart they could not be dealt out.
    """

    def memory_required(input_shape: Any, *args: Any, **kwargs: Any) -> Any:
        if input_shape[0] <= ROWS_EACH * gpus:
            return 0.0
        return whole(input_shape, *args, **kwargs) / gpus

    return memory_required


def is_far(network: Any) -> bool:
    return isinstance(network, FarNetwork)
