"""The vocabulary in which the tiny models of the tests are written down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch


class Noise(tuple[int, ...]):
    """A tensor of normal numbers, given by its shape."""

    def make(self, generator: torch.Generator) -> torch.Tensor:
        return torch.randn(tuple(self), generator=generator)


class Ones(tuple[int, ...]):
    """A tensor of ones, such as an attention mask, given by its shape."""

    def make(self, generator: torch.Generator) -> torch.Tensor:
        return torch.ones(tuple(self), dtype=torch.long)


@dataclass(frozen=True)
class Tokens:
    """Whole numbers in ``[0, vocabulary)``, the last ones of a row set to ``ending``."""

    shape: tuple[int, ...]
    vocabulary: int
    ending: tuple[int, ...] = ()

    def make(self, generator: torch.Generator) -> torch.Tensor:
        tokens = torch.randint(0, self.vocabulary, self.shape, generator=generator)
        if self.ending:
            tokens[..., -len(self.ending) :] = torch.tensor(self.ending)
        return tokens


@dataclass(frozen=True)
class Bundle:
    """An object with attributes, such as the output of a vision encoder."""

    attributes: Mapping[str, Any]

    def make(self, generator: torch.Generator) -> SimpleNamespace:
        return SimpleNamespace(**made(dict(self.attributes), generator))


def made(value: Any, generator: torch.Generator) -> Any:
    """A value with everything in it that is to be made, made."""
    if hasattr(value, "make"):
        return value.make(generator)
    if isinstance(value, dict):
        return {key: made(item, generator) for key, item in value.items()}
    if isinstance(value, list):
        return [made(item, generator) for item in value]
    return value


@dataclass(frozen=True)
class TinyModel:
    """How to build one family small and what it needs to sample.

    Parameters
    ----------
    config
        Name of the host's class in ``comfy.supported_models``.
    unet_config
        Constructor arguments of the network.
    latent
        Shape of a latent without the batch, ``[C, …]``, or one shape for each part of a nested
        latent.
    context
        Width of the text conditioning; ``text_tokens`` is its length.
    pooled
        Width of the pooled conditioning, 0 for none.
    extra
        More of the conditioning's options; Noise, Tokens and the like in it are made per prompt.
    weights
        Tensors that the host reads from the checkpoint while it builds the model.
    prepare
        Called with the network before it gets its weights, to make a part of fixed size small.
    before_run
        Called with the network before every sampling run, where the host leaves something on it.
    one_at_a_time
        Whether the host itself fails to evaluate positive and negative prompt in one batch.
    control
        Shape of what a ControlNet adds, as the host hands it to this model: list name to
        ``(how many, tokens, width)``.
    """

    config: str
    unet_config: dict[str, Any]
    latent: tuple[Any, ...]
    context: int | tuple[int, ...] = 24
    text_tokens: int = 5
    pooled: int = 0
    extra: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Any] = field(default_factory=dict)
    prepare: Callable[[Any], None] | None = None
    before_run: Callable[[Any], None] | None = None
    one_at_a_time: bool = False
    control: dict[str, tuple[int, int, int]] = field(default_factory=dict)
