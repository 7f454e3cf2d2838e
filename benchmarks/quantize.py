#!/usr/bin/env python3
"""What Quantize Model loses, and on a GPU what it gains.

- ``quality``: both demo models in every precision against the fp32 run of the same noise, ``psnr``
  on the latents (peak = range of the fp32 latent, mean of dB over the prompts); ``error`` is the
  relative error of what the model predicts, as the node measured it, ``predicted`` what it expected
  from single layers, ``bytes`` of all weights. Formats without a kernel on this machine round their
  activations all the same (``emulated``), but for ``weights only``. ``middle`` makes the middle
  half of the layers nvfp4 and the others int8, ``mixed`` has the same bytes.
- ``lora``: a LoRA of rank 8 with a tenth of every block layer's size, folded in before, added on
  top by ComfyUI (``fold_loras`` off), and added after the node; against fp32 with that LoRA.
- ``planted``: the same functions with values that break formats. ``channel``: one channel of a
  thousand times the size in the input of attention projections, by itself undone in their weights;
  ``row``: a token near 6e4 in MLPs. ``plain int8`` has no smoothing and no rotation, ``fp8 a
  tensor`` one scale for all.
- ``speed`` (``--gpu``): milliseconds of the products of one block's shapes by format, at the tokens
  of a picture or video, and an evaluation of FLUX end to end.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
import performance
import planted

if TYPE_CHECKING:
    import torch

STEPS = 12
FIRST_SEED = 7000
RANK, LORA_SIZE = 8, 0.1
PRECISIONS = ("int8", "fp8", "mxfp8", "nvfp4")
NO_LIMIT = 1.0
"""``most`` of rows that show what a format loses: no layer goes back."""

SHAPES: dict[str, tuple[int, tuple[tuple[int, int], ...]]] = {
    "FLUX.1": (4608, ((9216, 3072), (3072, 3072), (12288, 3072), (3072, 12288), (21504, 3072))),
    "Wan 14B": (32760, ((5120, 5120), (13824, 5120), (5120, 13824))),
    "Qwen-Image": (6889, ((3072, 3072), (12288, 3072), (3072, 12288))),
    "Z-Image": (4128, ((11520, 3840), (3840, 3840), (10240, 3840), (3840, 10240))),
}
"""Tokens, and the shapes of a block's weights."""


class Bench:
    """One demo model with its fp32 runs."""

    def __init__(self, kind: str, prompts: int) -> None:
        self.kind = kind
        self.demo = performance.DEMOS[kind]()
        self.prompts = self.demo.prompts[:prompts]
        self.model = self.demo.model

    def latents(self, model: Any) -> list[torch.Tensor]:
        """A latent a prompt, sampled side by side, each from a seed of its own."""
        import comfy.sample
        import torch

        empty = self.empty()
        seeds = range(FIRST_SEED, FIRST_SEED + len(self.prompts))
        noise = torch.cat([comfy.sample.prepare_noise(empty, seed) for seed in seeds])
        found = [self.demo.conditioning(prompt)[0] for prompt in self.prompts]
        text = torch.cat([tokens for tokens, _ in found])
        pooled = {key: torch.cat([one[key] for _, one in found]) for key in found[0][1]}
        conditioning = [[text, pooled]]
        with torch.inference_mode():
            latent = comfy.sample.sample(
                model, noise, STEPS, 1.0, "euler", "simple", conditioning, conditioning,
                torch.zeros_like(noise), disable_pbar=True, seed=0,
            )  # fmt: skip
        return list(latent.split(1))

    def quantized(self, model: Any, emulate: bool = True, **settings: Any) -> Any:
        from dit_acceleration_pack.acceleration import host
        from dit_acceleration_pack.acceleration.quantize import QuantizeSettings

        return host.attach_quantize(
            model,
            QuantizeSettings(**settings),
            # None of the prompts that are compared.
            positive=self.demo.conditioning(self.demo.prompts[-1]),
            latent=self.empty(),
            emulate=emulate,
        )

    def empty(self) -> torch.Tensor:
        import torch

        shapes = self.demo.shapes
        size = getattr(shapes, "LATENT_SHAPE", None)
        if size is None:
            size = (shapes.LATENT_CHANNELS, shapes.LATENT_SIZE, shapes.LATENT_SIZE)
        return torch.zeros(1, *size)


def report_of(model: Any) -> Any:
    from dit_acceleration_pack.acceleration import host

    lever = host.lever_of(model, host.QUANTIZE_KEY)
    assert lever is not None
    return lever.last_report


def mean_psnr(full: Sequence[Any], others: Sequence[Any]) -> float:
    return statistics.fmean(harness.psnr(a, b) for a, b in zip(full, others, strict=True))


@contextmanager
def nothing_goes_back() -> Iterator[None]:
    """Rows show what a format loses, also where the node would send layers back."""
    from dit_acceleration_pack.acceleration.host import quantize_choose

    kept = quantize_choose.MOST_ERROR, quantize_choose.AUTO_ERROR
    quantize_choose.MOST_ERROR = quantize_choose.AUTO_ERROR = NO_LIMIT
    try:
        yield
    finally:
        quantize_choose.MOST_ERROR, quantize_choose.AUTO_ERROR = kept


def row(bench: Bench, kind: str, way: str, model: Any, full: Sequence[Any]) -> dict[str, Any]:
    report = report_of(model)
    return {
        "kind": kind,
        "model": bench.kind,
        "way": way,
        "psnr": mean_psnr(full, bench.latents(model)),
        "error": report.measured,
        "predicted": report.predicted,
        "bytes": report.bytes_after,
        "bytes_before": report.bytes_before,
        "formats": report.formats,
    }


def quality_rows(bench: Bench) -> Iterator[dict[str, Any]]:
    full = bench.latents(bench.model)
    with nothing_goes_back():
        for precision in PRECISIONS:
            model = bench.quantized(bench.model, precision=precision)
            yield row(bench, "quality", precision, model, full)
        model = bench.quantized(bench.model, emulate=False, precision="fp8", measure="off")
        yield row(bench, "quality", "fp8, weights only", model, full)
        middle = in_the_middle(bench)
        found = row(bench, "quality", "half nvfp4, the middle layers", middle, full)
        yield found
        model = bench.quantized(
            bench.model, precision="mixed", memory_gb=(found["bytes"] + 1) / 1e9
        )
        yield row(bench, "quality", "mixed, as many bytes", model, full)


def in_the_middle(bench: Bench) -> Any:
    """The middle half of the layers nvfp4 and the rest int8, without asking what they lose."""
    from dit_acceleration_pack.acceleration.host import quantize_choose
    from dit_acceleration_pack.acceleration.quantize.formats import NVFP4

    def middle(options: Any, _: Any) -> Any:
        plan = {path: choices[0] for path, choices in options.items()}
        places = [path for path, choices in options.items() if choices[-1].format == NVFP4]
        quarter = len(places) // 4
        for path in places[quarter : len(places) - quarter]:
            plan[path] = options[path][-1]
        return plan

    kept = quantize_choose.smallest_within
    quantize_choose.smallest_within = middle
    try:
        return bench.quantized(bench.model, precision="mixed")
    finally:
        quantize_choose.smallest_within = kept


def with_lora(model: Any, seed: int = 0) -> Any:
    """A MODEL with a LoRA on every layer of its blocks, as ComfyUI's loader adds one."""
    import torch

    from dit_acceleration_pack.acceleration import host
    from dit_acceleration_pack.acceleration.quantize import linear_layers

    generator = torch.Generator().manual_seed(seed)
    network = host.network_of(model)
    patches = {}
    for layer in linear_layers(network, host.structure_of(model)):
        up = torch.randn(layer.rows, RANK, generator=generator)
        down = torch.randn(RANK, layer.columns, generator=generator)
        size = float(torch.linalg.norm(up @ down))
        weight = network.get_submodule(layer.path).weight
        if type(weight).__name__ == "QuantizedTensor":
            weight = weight.dequantize()
        share = LORA_SIZE * float(torch.linalg.norm(weight.float())) / size
        patches[f"diffusion_model.{layer.path}.weight"] = ("diff", (share * up @ down,))
    patched = model.clone()
    patched.add_patches(patches)
    return patched


def lora_rows(bench: Bench) -> Iterator[dict[str, Any]]:
    before = with_lora(bench.model)
    full = bench.latents(before)
    with nothing_goes_back():
        for precision in ("int8", "fp8"):
            asked = {"precision": precision, "measure": "off"}
            ways: dict[str, Callable[[], Any]] = {
                "folded in": partial(bench.quantized, before, **asked),
                "added on top": partial(bench.quantized, before, **asked, fold_loras=False),
                "after the node": partial(after_the_node, bench, before, **asked),
            }
            for way, make in ways.items():
                yield row(bench, "lora", f"{precision}, {way}", make(), full)


def after_the_node(bench: Bench, before: Any, **settings: Any) -> Any:
    small = bench.quantized(bench.model, **settings)
    patched = small.clone()
    patched.patches = {key: list(some) for key, some in before.patches.items()}
    patched.patches_uuid = before.patches_uuid
    return patched


def planted_rows(bench: Bench) -> Iterator[dict[str, Any]]:
    from dit_acceleration_pack.acceleration.host import quantize_choose, quantize_kernels

    plants = {"channel": planted.channels, "row": planted.rows}
    for name, plant in plants.items():
        with plant(bench.model) as model, nothing_goes_back(), planted.only_the_whole():
            for way in ("plain int8", "int8", "fp8 a tensor", "fp8", "nvfp4"):
                with planted.by_way(way):
                    precision = {"plain int8": "int8", "fp8 a tensor": "fp8"}.get(way, way)
                    report = report_of(bench.quantized(model, precision=precision))
                yield {
                    "kind": "planted", "model": bench.kind, "plant": name, "way": way,
                    "error": report.measured,
                }  # fmt: skip
        with plant(bench.model) as model, planted.everything_is_faster(quantize_kernels):
            report = report_of(bench.quantized(model, precision="auto"))
            assert quantize_choose.AUTO_ERROR <= 0.01
            yield {
                "kind": "planted", "model": bench.kind, "plant": name, "way": "auto",
                "error": report.measured, "formats": report.formats,
                "went_back": len(report.went_back),
            }  # fmt: skip


def speed_rows() -> Iterator[dict[str, Any]]:
    import comfy.model_management
    import torch

    from dit_acceleration_pack.acceleration.host import quantize_kernels

    device = comfy.model_management.get_torch_device()
    names = [
        quantize_kernels.AS_IT_IS,
        *(name for name in PRECISIONS if name in quantize_kernels.kernels_of(device)),
    ]
    for model, (tokens, shapes) in SHAPES.items():
        quantize_kernels.TOKENS[device.type] = tokens
        for shape in shapes:
            times = quantize_kernels._times(device, torch.bfloat16, names, {shape: 1})
            yield {"kind": "speed", "model": model, "shape": list(shape), "tokens": tokens} | times


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompts", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--models", nargs="*", default=list(performance.DEMOS))
    parser.add_argument("--parts", nargs="+", default=["quality", "lora", "planted"])
    parser.add_argument("--add", action="store_true", help="keep the other rows of the output file")
    parser.add_argument("--busy", action="store_true", help="note that others used the machine")
    parser.add_argument("--output", type=Path, default=harness.RESULTS / "quantize.json")


def kept_rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of the output file that this run does not measure again."""
    rows: list[dict[str, Any]] = json.loads(options.output.read_text(encoding="utf-8"))["rows"]
    return [
        row
        for row in rows
        if row["kind"] not in options.parts
        or (row["kind"] != "speed" and row["model"] not in options.models)
    ]


def main(options: argparse.Namespace, environment: Any) -> int:
    if not options.gpu:
        planted.quick_int8()
        # It tells of every product that has no kernel here.
        logging.getLogger("comfy_kitchen").setLevel(logging.ERROR)
    parts = {"quality": quality_rows, "lora": lora_rows, "planted": planted_rows}
    rows = kept_rows(options) if options.add else []
    for kind in options.models:
        bench = Bench(kind, options.prompts)
        for part in options.parts:
            for found in parts[part](bench) if part in parts else ():
                rows.append(harness.rounded(found, 6))
                harness.show(rows[-1])
    if options.gpu or "speed" in options.parts:
        for found in speed_rows():
            rows.append(harness.rounded(found))
            harness.show(rows[-1])
    data = {
        "environment": harness.describe(environment),
        "busy": options.busy,
        "prompts": options.prompts,
        "steps": STEPS,
        "rows": rows,
    }
    harness.write(options.output, data)
    return 0


if __name__ == "__main__":
    harness.run(__file__, add_options, main)
