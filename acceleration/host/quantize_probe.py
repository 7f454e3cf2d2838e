"""A short probe of a MODEL: what goes into its layers, and how much its prediction changes."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ..quantize import Choice, Seen, output, rounded_weight
from ..quantize.measure import MOST_ROWS
from .levers import COMPILE_KEY, levers_of, without
from .model import is_cancel

log = logging.getLogger("dit_acceleration")

STATES = 4
"""Steps of the probe. Each is a state of the picture, from noise to nearly done."""
SIDE = 32
"""Of the probe's latent: 256 pixels with most autoencoders."""
TEXT_TOKENS = 64
RECORD_KEY = "dit_acceleration.quantize.record"

TEXT_WIDTHS = (
    *("context_in_dim", "in_text_dim", "text_dim", "joint_attention_dim", "cap_feat_dim"),
    *("caption_channels", "text_embed_dim", "txt_in_dim", "text_in_dim", "text_states_dim"),
    *("encoder_hidden_size", "crossattn_emb_channels", "cond_token_dim", "text_emb_dim"),
    *("text_feat_dim", "context_dim", "context_size", "cross_attention_dim"),
)
"""What the host's networks call the width of their text."""


@dataclass
class Call:
    """One call of the model in the probe."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    x: torch.Tensor
    exact: torch.Tensor
    """The model's prediction."""


@dataclass
class Probe:
    """What was seen while a few steps were sampled."""

    calls: list[Call] = field(default_factory=list)
    seen: dict[str, Seen] = field(default_factory=dict)
    """By the path of a layer."""
    what: str = ""
    """For people: with what was measured."""

    def error(self, apply: Callable[..., torch.Tensor]) -> float:
        """Relative error (L2) of the picture's direction that a model predicts, over all states.

        What it predicts is the picture; the direction (velocity) is from there to the noisy one. It
        is longest in strong noise, where the picture is decided, so that counts most.
        """
        lost = size = 0.0
        for call in self.calls:
            found = apply(*call.args, **call.kwargs)
            lost += float((found.float() - call.exact.float()).square().sum())
            size += float((call.x.float() - call.exact.float()).square().sum())
        return (lost / max(size, 1e-20)) ** 0.5

    def joined(self, apply: Callable[..., torch.Tensor]) -> Probe:
        """The same in one call, where the model that was probed gives the same in a batch."""
        try:
            together = _joined(self.calls)
            found = apply(*together.args, **together.kwargs)
            alike = torch.allclose(found, together.exact, rtol=0.05, atol=0.01 * _size(found))
        except Exception as error:
            if is_cancel(error):
                raise
            log.debug("Calls are not joined: %s", error)
            return self
        if not alike:
            return self
        # What the model gives in a batch is what others are compared with, to the last digit.
        together.exact = found.clone()
        return replace(self, calls=[together])


def _size(x: torch.Tensor) -> float:
    return float(x.float().square().mean().sqrt())


def _joined(calls: list[Call]) -> Call:
    """Calls side by side in a batch; an error where they hold what cannot be."""
    places = zip(*(call.args for call in calls), strict=True)
    names = calls[0].kwargs
    return Call(
        tuple(_side_by_side(list(values)) for values in places),
        {name: _side_by_side([call.kwargs[name] for call in calls]) for name in names},
        torch.cat([call.x for call in calls]),
        torch.cat([call.exact for call in calls]),
    )


def _side_by_side(values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, torch.Tensor):
        return torch.cat(values) if first.ndim else first
    if isinstance(first, dict):
        # Conditions and transformer_options; what is no tensor is the same in every step.
        shared = first.keys() & {"sigmas", "uuids", "cond_or_uncond"}
        listed = {key: _listed([value[key] for value in values]) for key in shared}
        return {**first, **listed}
    return first


def _listed(values: list[Any]) -> Any:
    if isinstance(values[0], torch.Tensor):
        return torch.cat(values)
    return [one for value in values for one in value]


def text_width(model: Any) -> int:
    """Width of the text that a network reads, 0 where it is not known."""
    config = model.model.model_config.unet_config
    known = inspect.signature(type(model.model.diffusion_model).__init__).parameters
    defaults = {name: known[name].default for name in TEXT_WIDTHS if name in known}
    for found in (config, defaults):
        for name in TEXT_WIDTHS:
            width = found.get(name)
            if isinstance(width, int) and width > 0:
                return width
    return 0


def conditioning_for(model: Any) -> list[Any]:
    """A CONDITIONING made of seeded noise, of the width that the network reads."""
    width = text_width(model)
    if not width:
        raise ValueError("how wide this model's text is, is not known")
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(1, TEXT_TOKENS, width, generator=generator)
    config = model.model.model_config.unet_config
    pooled = getattr(model.model, "adm_channels", 0) or config.get("vec_in_dim") or 0
    options = {"pooled_output": torch.randn(1, pooled, generator=generator)} if pooled else {}
    return [[text, options]]


def latent_for(model: Any) -> torch.Tensor:
    """An empty latent ``[1, C, …]``, of one frame where the model samples videos."""
    form = model.get_model_object("latent_format")
    sides = {1: (4 * SIDE,), 2: (SIDE, SIDE), 3: (1, SIDE, SIDE)}[form.latent_dimensions]
    return torch.zeros(1, form.latent_channels, *sides)


def probe(
    model: Any, paths: Iterable[str], positive: Any = None, latent: Any = None, seed: int = 0
) -> Probe:
    """Sample a few steps and record what goes into layers.

    Parameters
    ----------
    paths
        Of the layers.
    positive
        A CONDITIONING, or None for noise in its place.
    latent
        An empty latent of the size to probe with ``[B, C, …]``, or None for a small one.
    """
    import comfy.sample

    found = Probe()
    text = "a prompt" if positive is not None else "noise in place of a prompt"
    positive = conditioning_for(model) if positive is None else positive
    latent = latent_for(model) if latent is None else latent
    latent = comfy.sample.fix_empty_latent_channels(model, latent)
    noise = comfy.sample.prepare_noise(latent, seed)
    watched = _watched(model, found)
    with torch.inference_mode(), _recorded(model.model.diffusion_model, paths, found.seen):
        comfy.sample.sample(
            watched, noise, STATES, 1.0, "euler", "simple", positive, positive, latent,
            disable_pbar=True, seed=seed,
        )  # fmt: skip
    size = " x ".join(map(str, noise.shape[2:])) if not noise.is_nested else "several parts"
    found.what = f"{text} and a latent of {size}"
    return found


def plain(model: Any) -> Any:
    """A clone without our levers and without compiling: the model as it computes by itself."""
    for key in (*levers_of(model), COMPILE_KEY):
        model = without(model, key)
    return model


def _watched(model: Any, found: Probe) -> Any:
    from comfy.patcher_extension import WrappersMP

    def record(executor: Any, *args: Any, **kwargs: Any) -> Any:
        exact = executor(*args, **kwargs)
        given = tuple(map(_without_recorder, args))
        more = {name: _without_recorder(value) for name, value in kwargs.items()}
        if not isinstance(exact, torch.Tensor):
            raise TypeError("this model predicts more than one tensor")
        found.calls.append(Call(given, more, args[0].clone(), exact.clone()))
        return exact

    watched = plain(model)
    watched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, RECORD_KEY, record)
    return watched


def _without_recorder(value: Any) -> Any:
    """An argument as the model may keep it; ``transformer_options`` without what records."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if not isinstance(value, dict) or "wrappers" not in value:
        return value
    wrappers = {
        kind: {key: done for key, done in by_key.items() if key != RECORD_KEY}
        for kind, by_key in value["wrappers"].items()
    }
    return {**value, "wrappers": wrappers}


@contextmanager
def _recorded(network: Any, paths: Iterable[str], seen: dict[str, Seen]) -> Iterator[None]:
    handles = []

    def recorder(path: str) -> Callable[..., None]:
        def look(_: Any, args: tuple[Any, ...]) -> None:
            if not args or not isinstance(args[0], torch.Tensor) or not args[0].numel():
                return
            new = Seen.of(args[0], MOST_ROWS // STATES)
            if path in seen:
                seen[path].add(new)
            else:
                seen[path] = new

        return look

    try:
        for path in paths:
            module = network.get_submodule(path)
            handles.append(module.register_forward_pre_hook(recorder(path)))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def loaded(model: Any) -> Iterator[Any]:
    """The host's model, on its device and ready to be called."""
    import comfy.model_management as management

    management.load_models_gpu([model])
    model.pre_run()
    try:
        with torch.inference_mode():
            yield model.model
    finally:
        model.cleanup()


@contextmanager
def replaced(
    network: Any, choice: Choice, weight: torch.Tensor, activations: bool
) -> Iterator[None]:
    """One layer of a network computes as if it were quantized; all else is as it was."""
    module = network.get_submodule(choice.layer.path)
    bias = getattr(module, "bias", None)
    weight = rounded_weight(weight, choice)

    def quantized(_: Any, args: tuple[Any, ...], exact: torch.Tensor) -> torch.Tensor:
        out = output(args[0], weight.to(args[0].device), choice, activations)
        return (out if bias is None else out + bias.to(out)).to(exact.dtype)

    handle = module.register_forward_hook(quantized)
    try:
        yield
    finally:
        handle.remove()
