"""What other packs do around a model, small: each evaluates one prompt several times a step.

A trick is built onto a MODEL and says, before every call, whose evaluation it is; the tests then
know which residual may be used where. All work on the demo FLUX.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import tiny_models as tm
import torch

Who = Callable[[Any], None]
"""Told whose evaluation begins."""

STEPS = 20


class Owners:
    """Watches who computed what each forecast knows, and who uses it."""

    def __init__(self) -> None:
        self.now: Any = None
        self.used = 0
        self.crossed: list[Any] = []

    def __call__(self, who: Any) -> None:
        self.now = who

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from dit_acceleration_pack.acceleration.sampling import run

        decide = run.SamplingRun._decide
        owners: dict[Any, set[Any]] = {}

        def watched(*args: Any) -> Any:
            residual = decide(*args)
            course = args[1]
            forecast = course.outcomes[-1].branch.forecast
            known = owners.setdefault(forecast, set())
            if residual is None:
                known.add(self.now)
            else:
                self.used += 1
                if known != {self.now}:
                    self.crossed.append((known, self.now))
            return residual

        monkeypatch.setattr(run.SamplingRun, "_decide", watched)


@dataclass
class Bench:
    """The demo model and what is sampled with it."""

    model: Any
    positive: list[Any]
    negative: list[Any]
    size: int = 32
    extra: dict[str, Any] = field(default_factory=dict)

    def sample(self, model: Any, seed: int = 3, **options: Any) -> torch.Tensor:
        """As SamplerCustomAdvanced does, with a guider, a sampler, a cfg, a batch, conds."""
        import comfy.sample
        import comfy.samplers

        guider = options.get("guider", comfy.samplers.CFGGuider)(model)
        guider.set_conds(options.get("positive", self.positive), self.negative)
        guider.set_cfg(options.get("cfg", 1.0))
        sampler = options.get("sampler", "euler")
        if isinstance(sampler, str):
            sampler = comfy.samplers.sampler_object(sampler)
        sampling = model.get_model_object("model_sampling")
        sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", STEPS)
        empty = torch.zeros(options.get("batch", 1), 16, self.size, self.size)
        noise = comfy.sample.prepare_noise(empty, seed)
        with torch.inference_mode():
            found = guider.sample(noise, empty, sampler, sigmas, disable_pbar=True, seed=seed)
        return torch.cat([found, *self.extra.pop("more", [])])


@dataclass(frozen=True)
class Trick:
    """``build`` puts it on a MODEL; ``options`` go to ``Bench.sample``."""

    build: Callable[[Any, Who], Any] = lambda model, who: model
    options: Callable[[Bench, Who], dict[str, Any]] = lambda bench, who: {}
    alone: Callable[[Bench, Who], dict[str, Any]] = lambda bench, who: {}
    """What is sampled without the trick."""


def function_wrapper(inner: Callable[..., Any]) -> Callable[[Any, Who], Any]:
    """A trick by the host's model_function_wrapper: ``inner(call, x, t, c, who)``."""

    def build(model: Any, who: Who) -> Any:
        patched = model.clone()
        patched.set_model_unet_function_wrapper(
            lambda call, args: inner(call, args["input"], args["timestep"], args["c"], who)
        )
        return patched

    return build


def tiles(order: str = "fixed", side: int = 16) -> Callable[..., Any]:
    """Tiled diffusion: one call a tile; "random" order, or a "changing" number of them."""
    shuffle = torch.Generator()
    seen = [0]

    def inner(call: Any, x: torch.Tensor, t: torch.Tensor, c: dict[str, Any], who: Who) -> Any:
        if float(t[0]) > 0.9999:
            shuffle.manual_seed(0)
            seen[0] = 0
        seen[0] += 1
        height, width = x.shape[-2:]
        step = side // 2 if order == "changing" and seen[0] in (8, 9, 10, 11) else side
        places = [
            (y, z)
            for y in range(0, height - side + 1, step)
            for z in range(0, width - side + 1, step)
        ]
        if order == "random":
            places = [places[i] for i in torch.randperm(len(places), generator=shuffle)]
        out, weight = torch.zeros_like(x), torch.zeros_like(x)
        for y, z in places:
            part = (..., slice(y, y + side), slice(z, z + side))
            who((y, z, tuple(c["transformer_options"]["uuids"])))
            out[part] += call(x[part].contiguous(), t, **c)
            weight[part] += 1
        return out / weight

    return inner


def in_parts(*sizes: int) -> Callable[..., Any]:
    """A batch that is cut up to save memory."""

    def inner(call: Any, x: torch.Tensor, t: torch.Tensor, c: dict[str, Any], who: Who) -> Any:
        found, begin = [], 0
        for size in sizes:
            part = slice(begin, begin + size)
            mine = {
                k: v[part] if isinstance(v, torch.Tensor) and len(v) == len(x) else v
                for k, v in c.items()
            }
            who(begin)
            found.append(call(x[part], t[part], **mine))
            begin += size
        return torch.cat(found)

    return inner


def network_wrapper(calls: int) -> Callable[[Any, Who], Any]:
    """A pack that calls the network itself several times an evaluation, ours outside of it."""
    from comfy.patcher_extension import WrappersMP

    def build(model: Any, who: Who) -> Any:
        def wrapper(executor: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            found = []
            for number in range(calls):
                who(number)
                found.append(executor(x * (1 - 0.1 * number), *args, **kwargs))
            return found[0] + sum(0.1 * (found[0] - other) for other in found[1:])

        patched = model.clone()
        patched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "another_pack", wrapper)
        return patched

    return build


def second_pass(how: str, scale: float = 0.3) -> Callable[[Any, Who], Any]:
    """Guidance away from a pass with a weaker network, by the ways that packs have for it."""
    flag = [False]

    def weak_block(args: dict[str, Any], extra: dict[str, Any]) -> Any:
        if flag[0]:
            return {"img": args["img"], "txt": args["txt"]}
        return extra["original_block"](args)

    def post_cfg(args: dict[str, Any], who: Who) -> torch.Tensor:
        import comfy.model_patcher
        import comfy.samplers

        options = args["model_options"]
        if how == "options":
            options = comfy.model_patcher.create_model_options_clone(options)
            options["transformer_options"]["weak"] = "on"
        elif how == "attention":
            options = comfy.model_patcher.set_model_options_patch_replace(
                options.copy(), lambda q, *_, **__: q, "attn1", "double", 2
            )
        flag[0] = True
        who("weak")
        try:
            (weak,) = comfy.samplers.calc_cond_batch(
                args["model"], [args["cond"]], args["input"], args["sigma"], options
            )
        finally:
            flag[0] = False
            who("strong")
        return args["denoised"] + scale * (args["cond_denoised"] - weak)

    def build(model: Any, who: Who) -> Any:
        patched = model.clone()
        patched.set_model_patch_replace(weak_block, "dit", "double_block", 2)
        patched.set_model_sampler_post_cfg_function(lambda args: post_cfg(args, who))
        who("strong")
        return patched

    return build


def two_guiders(bench: Bench, who: Who) -> dict[str, Any]:
    """A guider that asks two others, which share model and prompts, one of an older picture."""
    import comfy.samplers

    class Both(comfy.samplers.CFGGuider):  # type: ignore[misc, name-defined]
        def predict_noise(self, x: Any, timestep: Any, *args: Any, **kwargs: Any) -> Any:
            who("one")
            one = super().predict_noise(x, timestep, *args, **kwargs)
            who("other")
            other = super().predict_noise(x.flip(-1), timestep, *args, **kwargs)
            who("one")
            return one + 0.1 * (one - other.flip(-1))

    return {"guider": Both}


def walks(
    cfg: float, heun: bool = False, alone: bool = False
) -> Callable[[Bench, Who], dict[str, Any]]:
    """A sampler that walks two pictures side by side, with the same prompts."""

    def options(bench: Bench, who: Who) -> dict[str, Any]:
        import comfy.samplers

        def walk(model: Any, x: torch.Tensor, sigmas: Any, extra_args: Any, **_: Any) -> Any:
            pictures, ones = {"one": x}, x.new_ones(len(x))
            if not alone:
                pictures["other"] = x.flip(-1).clone()
            for sigma, target in itertools.pairwise(sigmas):
                for name, at in pictures.items():
                    who(name)
                    slope = (at - model(at, sigma * ones, **extra_args)) / sigma
                    ahead = at + slope * (target - sigma)
                    if heun and target > 0:
                        there = (ahead - model(ahead, target * ones, **extra_args)) / target
                        ahead = at + (slope + there) / 2 * (target - sigma)
                    pictures[name] = ahead
            first, *rest = pictures.values()
            bench.extra["more"] = rest
            return first

        return {"sampler": comfy.samplers.KSAMPLER(walk), "cfg": cfg}

    return options


def with_control(side: int) -> Callable[[Bench, Who], dict[str, Any]]:
    """A ControlNet that adds after two blocks, for tiles of a size."""

    def options(bench: Bench, who: Who) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(7)
        add = torch.randn(1, side * side // 4, 128, generator=generator) * 0.3
        control = tm.TinyControl({"input": [add, add], "output": []})
        return {"positive": tm.add_control(bench.positive, control)}

    return options


def regional(bench: Bench, who: Who) -> dict[str, Any]:
    """The prompt for all, and again for the left half."""
    (tokens, given), *_ = bench.positive
    half = {**given, "area": (bench.size, bench.size // 2, 0, 0), "strength": 1.0}
    return {"positive": [[tokens, given], [tokens.flip(1), half]]}


TRICKS: dict[str, Trick] = {
    "tiles": Trick(function_wrapper(tiles())),
    "tiles in random order": Trick(function_wrapper(tiles("random"))),
    "tiles whose number changes": Trick(function_wrapper(tiles("changing"))),
    "tiles with a ControlNet": Trick(function_wrapper(tiles()), with_control(16)),
    "tiles with regional prompts": Trick(function_wrapper(tiles()), regional),
    "two pictures": Trick(options=walks(1.0), alone=walks(1.0, alone=True)),
    "two pictures, cfg 3": Trick(options=walks(3.0), alone=walks(3.0, alone=True)),
    "two pictures, heun": Trick(
        options=walks(1.0, heun=True), alone=walks(1.0, heun=True, alone=True)
    ),
    "second pass by a flag": Trick(second_pass("flag")),
    "second pass by options": Trick(second_pass("options")),
    "second pass by an attention patch": Trick(second_pass("attention")),
    "two guiders": Trick(options=two_guiders),
    "network called once": Trick(network_wrapper(1)),
    "network called twice": Trick(network_wrapper(2)),
    "network called three times": Trick(network_wrapper(3)),
    "batch in unequal parts": Trick(
        function_wrapper(in_parts(1, 2)), lambda bench, who: {"batch": 3}
    ),
}
