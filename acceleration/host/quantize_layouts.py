"""Quantized weights as the host holds them: its own layouts, and two that it lacks.

``SmoothedINT8Layout`` is the host's int8 with channels of the input divided before they are
rounded, and ``RowFP8Layout`` is fp8 with a scale for every row of the weight and of the input.
Their weights can be taken apart and made again in the right basis, so a LoRA that the host adds
later is added to the weight as it was.

This module imports the host, so it is imported where a model is quantized and not before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import comfy.float
import comfy.ops
import torch
from comfy.quant_ops import (
    QuantizedLayout,
    QuantizedTensor,
    TensorWiseINT8Layout,
    register_layout_class,
    register_layout_op,
)
from comfy_kitchen.tensor import BaseLayoutParams, dequantize_args

from ..quantize import Choice
from ..quantize.formats import FP8, INT8, MXFP8, NVFP4
from ..quantize.rounding import FLOAT8, FP8_MOST, fp8, row_scale

PLAIN_INT8 = "TensorWiseINT8Layout"
SMOOTHED_INT8 = "DiTAccelerationSmoothedINT8Layout"
ROW_FP8 = "DiTAccelerationRowFP8Layout"
LAYOUTS = {MXFP8: "TensorCoreMXFP8Layout", NVFP4: "TensorCoreNVFP4Layout", FP8: ROW_FP8}
"""By format; int8 has two."""
DYNAMIC = "int8_tensorwise"
"""The host's name of a format whose input is rounded by the layout and not by the layer. The
layers of our layouts are called so, too."""


class SmoothedINT8Layout(TensorWiseINT8Layout):
    """int8 with a scale for every row; the input is divided by ``smooth`` first."""

    @dataclass(frozen=True)
    class Params(TensorWiseINT8Layout.Params):
        smooth: Any = None
        """``[in]``, powers of two."""

        def _tensor_fields(self) -> list[str]:
            return ["scale", "smooth"]

    @classmethod
    def quantize(cls, tensor: Any, smooth: Any = None, **options: Any) -> tuple[Any, Any]:
        smooth = smooth.to(tensor.device)
        qdata, plain = super().quantize(tensor * smooth.to(tensor.dtype), **options)
        return qdata, dataclasses.replace(plain, smooth=smooth)

    @classmethod
    def dequantize(cls, qdata: Any, params: Any) -> Any:
        return super().dequantize(qdata, params) / params.smooth.to(params.orig_dtype)

    @classmethod
    def state_dict_tensors(cls, qdata: Any, params: Any) -> dict[str, Any]:
        return {**super().state_dict_tensors(qdata, params), "_smooth": params.smooth}

    @classmethod
    def requantize_kwargs(cls, qtensor: Any) -> dict[str, Any]:
        return {**super().requantize_kwargs(qtensor), "smooth": qtensor._params.smooth}


class RowFP8Layout(QuantizedLayout):
    """fp8 (E4M3) with a scale for every row."""

    MIN_SM_VERSION = (8, 9)

    @dataclass(frozen=True)
    class Params(BaseLayoutParams):
        transposed: bool = False

    @classmethod
    def quantize(cls, tensor: Any, stochastic_rounding: int | None = 0, **_: Any) -> Any:
        scale = row_scale(tensor, FP8_MOST)
        parts = tensor.float() / scale
        if stochastic_rounding:
            qdata = comfy.float.stochastic_rounding(parts, FLOAT8, seed=stochastic_rounding)
        else:
            qdata = parts.to(FLOAT8)
        return qdata, cls.Params(scale, tensor.dtype, tuple(tensor.shape))

    @classmethod
    def dequantize(cls, qdata: Any, params: Any) -> Any:
        return (qdata.float() * params.scale).to(params.orig_dtype)

    @classmethod
    def get_plain_tensors(cls, qtensor: Any) -> tuple[Any, Any]:
        return qtensor._qdata, qtensor._params.scale

    @classmethod
    def state_dict_tensors(cls, qdata: Any, params: Any) -> dict[str, Any]:
        return {"": qdata, "_scale": params.scale}


register_layout_class(SMOOTHED_INT8, SmoothedINT8Layout)
register_layout_class(ROW_FP8, RowFP8Layout)


def _fields(params: Any) -> dict[str, Any]:
    return {f.name: getattr(params, f.name) for f in dataclasses.fields(params)}


def _smoothed_product(x: Any, weight: Any, bias: Any) -> Any:
    """The host's int8 product of an input that is divided before."""
    params = _fields(weight._params)
    smooth = params.pop("smooth")
    params |= {"transposed": False, "orig_shape": tuple(weight._qdata.shape)}
    plain = QuantizedTensor(weight._qdata, PLAIN_INT8, TensorWiseINT8Layout.Params(**params))
    return torch.ops.aten.linear.default(x / smooth.to(x.dtype), plain, bias)


def _fp8_product(x: Any, weight: Any, bias: Any) -> Any:
    """By the device's fp8 kernel; where there is none, of the same values in full precision."""
    qdata, params = weight._qdata, weight._params
    if not (x.is_cuda and RowFP8Layout.supports_fast_matmul()):
        exact = RowFP8Layout.dequantize(qdata, params).to(x.dtype)
        return torch.nn.functional.linear(fp8(x), exact, bias)
    rows = x.reshape(-1, x.shape[-1])
    scale = row_scale(rows, FP8_MOST)
    out = torch._scaled_mm(
        (rows.float() / scale).to(FLOAT8),
        qdata.t(),
        scale_a=scale,
        scale_b=params.scale.reshape(1, -1),
        out_dtype=torch.bfloat16,
    )
    out = out.to(x.dtype).reshape(*x.shape[:-1], -1)
    return out if bias is None else out + bias


def _register(layout: type[Any], product: Callable[[Any, Any, Any], Any]) -> None:
    """What the host may make of ``linear``: itself, or a transposed weight and a product.

    Whatever is inherited here would leave out what this layout does to the input.
    """
    aten = torch.ops.aten

    def handle(op: Any, place: int, transposed: bool) -> None:
        def multiply(_: Any, args: Any, kwargs: Any) -> Any:
            x, weight = args[place - 1], args[place]
            ours = isinstance(weight, QuantizedTensor) and weight.layout_cls is layout
            ready = ours and weight._params.transposed is transposed
            if not ready or isinstance(x, QuantizedTensor):
                return op(*dequantize_args(args), **dequantize_args(kwargs))
            bias = args[0] if place == 2 else args[2] if len(args) > 2 else None
            return product(x, weight, bias)

        register_layout_op(op, layout)(multiply)

    handle(aten.linear.default, 1, False)
    handle(aten.mm.default, 1, True)
    handle(aten.addmm.default, 2, True)
    register_layout_op(aten.t.default, layout)(_transpose)


def _transpose(_: Any, args: Any, kwargs: Any) -> Any:
    weight = args[0]
    old = weight._params
    shape = (old.orig_shape[1], old.orig_shape[0])
    params = dataclasses.replace(old, orig_shape=shape, transposed=not old.transposed)
    return QuantizedTensor(weight._qdata, weight._layout_cls, params)


_register(SmoothedINT8Layout, _smoothed_product)
_register(RowFP8Layout, _fp8_product)


def quantized(weight: torch.Tensor, choice: Choice, dtype: torch.dtype) -> Any:
    """A weight in the format of a choice.

    Parameters
    ----------
    weight
        ``[out, in]``, where it is to be rounded.
    dtype
        What the model computes in.
    """
    if choice.format != INT8:
        made = QuantizedTensor.from_float(weight, LAYOUTS[choice.format])
    else:
        options: dict[str, Any] = {"is_weight": True, "per_channel": True}
        if choice.rotation:
            options |= {"convrot": True, "convrot_groupsize": choice.rotation}
        if choice.smooth is None:
            made = QuantizedTensor.from_float(weight, PLAIN_INT8, **options)
        else:
            made = QuantizedTensor.from_float(
                weight, SMOOTHED_INT8, smooth=choice.smooth, **options
            )
    return made.to(dtype=dtype)


class HeldTensor(QuantizedTensor):
    """A quantized tensor as a parameter of a layer.

    The host puts hooks on after ``backup = parameter.to(device, copy=True)`` and takes them off by
    ``parameter.data.copy_(backup)``. With its own class the backup is no copy where nothing moves,
    and ``data`` has scales of its own, so that the hook would stay.
    """

    @property
    def data(self) -> Any:
        return self

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = super().__torch_dispatch__(func, types, args, kwargs)
        if (kwargs or {}).get("copy") and found is args[0]:
            return found.clone()
        # A parameter is made of a tensor by detaching it, and has to be of the same class.
        return _held(found) if func is torch.ops.aten.detach.default else found


def _held(weight: Any) -> Any:
    if isinstance(weight, QuantizedTensor):
        weight.__class__ = HeldTensor
    return weight


SCALES = ("weight_scale", "weight_scale_2", "weight_smooth", "comfy_quant")
"""What a layer's state holds beside weight and bias."""


@cache
def linear_class(dtype: torch.dtype) -> type[Any]:
    """The host's linear layer for quantized weights, which can also compute exactly.

    The host's own ignores ``_full_precision_mm`` for int8, and takes no hooks.
    """
    operations = comfy.ops.mixed_precision_ops({}, dtype)

    class Linear(operations.Linear):  # type: ignore[name-defined]
        weight: Any

        def _forward(self, input: Any, weight: Any, bias: Any) -> Any:
            dynamic = self._full_precision_mm and self.quant_format == DYNAMIC
            if dynamic and isinstance(weight, QuantizedTensor):
                weight = weight.dequantize()
            return super()._forward(input, weight, bias)

        def _apply(self, fn: Any, recurse: bool = True) -> Any:
            # The host's makes every parameter anew, which fails for a tensor that was made outside
            # of inference mode and does not move in it.
            for name, old in list(self.named_parameters(recurse=False)):
                moved = fn(old)
                if moved is not old:
                    if moved.is_inference() and not torch.is_inference_mode_enabled():
                        moved = moved.clone()
                    setattr(self, name, torch.nn.Parameter(moved, requires_grad=False))
            return self

        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, _held(value) if name == "weight" else value)

        def __getattr__(self, name: str) -> Any:
            # Before a hook the host asks for everything that it finds in the layer's state.
            if name in SCALES and name in (state := self.state_dict()):
                return state[name]
            return super().__getattr__(name)

        def set_weight(
            self,
            weight: Any,
            inplace_update: bool = False,
            seed: int | None = None,
            return_weight: bool = False,
            **_: Any,
        ) -> Any:
            made = self.weight.requantize_from_float(
                weight, scale="recalculate", stochastic_rounding=seed, inplace_ops=True
            ).to(dtype=self.weight.dtype)
            if return_weight:
                return made
            if inplace_update:
                self.weight.copy_(made)
            else:
                self.weight = torch.nn.Parameter(made, requires_grad=False)
            return None

    return Linear


def quantized_layer(
    layer: Any, weight: Any, choice: Choice, dtype: torch.dtype, exact: bool
) -> torch.nn.Module:
    """A layer with a quantized weight in the place of another one, whose bias it shares.

    Parameters
    ----------
    exact
        Whether activations always stay as they are, so that only memory is saved.
    """
    made = linear_class(dtype)(layer.in_features, layer.out_features, False, device="meta")
    made.weight = torch.nn.Parameter(weight, requires_grad=False)
    bias = getattr(layer, "bias", None)
    made.bias = None if bias is None else torch.nn.Parameter(bias.data, requires_grad=False)
    made.layout_type = weight._layout_cls
    host_format = choice.format in (MXFP8, NVFP4)
    made.quant_format = choice.format if host_format else DYNAMIC
    made._full_precision_mm = exact
    return made


def can_be_saved(choice: Choice) -> bool:
    """Whether the host's files have a place for a format."""
    return choice.format != FP8 and choice.smooth is None
