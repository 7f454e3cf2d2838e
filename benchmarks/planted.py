"""Values that break formats, planted into a demo model, and formats without what helps them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

TIMES = 1000.0
"""How much larger a planted channel is."""
LARGE = 6e4
"""What a planted token reaches."""
CHANNELS = (3, 40)


def attention_outputs(network: Any) -> Iterator[tuple[list[Any], slice, list[Any]]]:
    """Layers that make values, the rows in which they do, and the layers that read them."""
    for block in getattr(network, "double_blocks", ()):
        width = block.img_attn.proj.weight.shape[1]
        makers = [block.img_attn.qkv, block.txt_attn.qkv]
        yield makers, slice(2 * width, 3 * width), [block.img_attn.proj, block.txt_attn.proj]
    for block in getattr(network, "single_blocks", ()):
        width = block.linear2.weight.shape[0]
        yield [block.linear1], slice(2 * width, 3 * width), [block.linear2]
    for block in getattr(network, "blocks", ()):
        for attention in (block.self_attn, block.cross_attn):
            yield [attention.v], slice(0, None), [attention.o]


def mlps(network: Any) -> Iterator[tuple[Any, Any]]:
    """The two layers of MLPs."""
    for block in getattr(network, "double_blocks", ()):
        yield block.img_mlp[0], block.img_mlp[2]
    for block in getattr(network, "blocks", ()):
        yield block.ffn[0], block.ffn[2]


def quick_int8() -> None:
    """Products of whole numbers in float32: the same sums, several times as fast on processors."""
    import torch

    torch._int_mm = lambda a, b: (a.float() @ b.float()).to(torch.int32)


@contextmanager
def changed(model: Any) -> Iterator[Any]:
    """A MODEL whose weights may be written to; afterwards they are as before."""
    network = model.model.diffusion_model
    kept = {name: value.clone() for name, value in network.state_dict().items()}
    try:
        yield network
    finally:
        network.load_state_dict(kept)


@contextmanager
def channels(model: Any) -> Iterator[Any]:
    """The same function; some channels between attention and its projection are much larger."""
    with changed(model) as network:
        for makers, rows, readers in attention_outputs(network):
            for channel in CHANNELS[:1]:
                for maker in makers:
                    maker.weight.data[rows][channel] *= TIMES
                    if maker.bias is not None:
                        maker.bias.data[rows][channel] *= TIMES
                for reader in readers:
                    reader.weight.data[:, channel] /= TIMES
        yield model


@contextmanager
def rows(model: Any) -> Iterator[Any]:
    """Single tokens make huge values in some channels of MLPs, which their weights make small.

    A row of the first layer is turned towards what one token brings, so that others make little.
    """
    import torch

    from dit_acceleration_pack.acceleration.host.quantize_probe import probe

    with changed(model) as network:
        names = {module: name for name, module in network.named_modules()}
        pairs = list(mlps(network))
        seen = probe(model, [names[first] for first, _ in pairs]).seen
        for first, second in pairs:
            inputs = seen[names[first]].rows.float()
            centered = inputs - inputs.mean(0)
            token = centered[centered.norm(dim=1).argmax()]
            direction = token / token.norm()
            reach = inputs @ direction
            first.weight.data[0] = direction * (LARGE / reach.max())
            if first.bias is not None:
                # Only what comes near to that token is left by the activation.
                first.bias.data[0] = -LARGE * float(torch.quantile(reach, 0.98) / reach.max())
            second.weight.data[:, 0] /= LARGE
        yield model


@contextmanager
def by_way(way: str) -> Iterator[None]:
    """int8 without another basis, or fp8 with one scale for everything."""
    from dit_acceleration_pack.acceleration.host import quantize_choose, quantize_layouts
    from dit_acceleration_pack.acceleration.quantize import measure, rounding

    kept = measure.smoothing, measure.rotation_for, rounding.row_scale
    try:
        if way == "plain int8":
            measure.smoothing = lambda activations, _: activations * 0 + 1
            measure.rotation_for = lambda _: 0
        if way == "fp8 a tensor":
            whole = lambda x, most: kept[2](x.reshape(1, -1), most).expand(*x.shape[:-1], 1)  # noqa: E731
            rounding.row_scale = quantize_layouts.row_scale = whole
        yield
    finally:
        measure.smoothing, measure.rotation_for, rounding.row_scale = kept
        quantize_layouts.row_scale = kept[2]
        assert quantize_choose is not None


@contextmanager
def only_the_whole() -> Iterator[None]:
    """Nothing is asked of single layers, which takes most of the time."""
    from dit_acceleration_pack.acceleration.host.quantize_choose import Chooser

    kept = Chooser._measured
    Chooser._measured = lambda _, options: options
    try:
        yield
    finally:
        Chooser._measured = kept


@contextmanager
def everything_is_faster(kernels: Any) -> Iterator[None]:
    """auto may choose among all formats, as on the newest GPUs."""
    kept = kernels._has_kernel, kernels._times, kernels.read_choices
    kernels._has_kernel = lambda *_: True
    kernels.read_choices = lambda _: {}
    kernels._times = lambda _, __, names, ___: {
        name: 1.0 - 0.1 * place for place, name in enumerate(names)
    }
    try:
        yield
    finally:
        kernels._has_kernel, kernels._times, kernels.read_choices = kept
