"""The vocabulary in which families are described.

A transformer is a sequence of block *stacks*, each a ModuleList. A block takes and returns hidden
states in *streams*: ``image`` (all that becomes picture, video or audio), ``text`` (the prompt's
tokens where blocks transform them too), ``joined`` (image and text tokens in one tensor), and
further streams that a family names itself (``audio`` of LTX-2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

if TYPE_CHECKING:
    from .tokens import TokenPlan

IMAGE, TEXT, JOINED = "image", "text", "joined"

TEXT_FIRST, IMAGE_FIRST = "text first", "image first"


class Arg(NamedTuple):
    """Where a block's call carries something: by keyword or at a position.

    ``item`` is an index into the argument when several streams travel as one tuple. A position is
    checked against the block's signature when a network is met (``signatures``).
    """

    keyword: str
    position: int
    item: int | None = None

    def read(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a call carries here, however it was passed; None if it was not."""
        if self.keyword in kwargs:
            value = kwargs[self.keyword]
        else:
            value = args[self.position] if self.position < len(args) else None
        return value if self.item is None or value is None else value[self.item]


class LatentPart(NamedTuple):
    """One part of a latent that holds several, such as the sound beside a picture."""

    name: str
    own_noise: bool = False
    """Whether the network runs it on another noise schedule than the sampler's."""


@dataclass(frozen=True)
class BlockStack:
    """One ModuleList of like blocks.

    Parameters
    ----------
    path
        Attribute of the network, dotted where nested, such as ``"double_blocks"``.
    inputs
        What the block takes and returns again, and where in its call.
    outputs
        Names in the order in which the block returns them; one name means a bare tensor, if not
        ``packed``. A name without an input is returned as None when the block is skipped.
    joined_order
        Which tokens come first where ``joined`` is an input.
    must_run
        Given ``(args, kwargs)`` of the first block: whether this evaluation may not be skipped
        because something beside the hidden state is made in the blocks.
    in_place
        Whether a block of some host writes its result into the hidden state that it was given. A
        snapshot kept by reference would then equal the result; all snapshots here are clones, in
        any case.
    packed
        Whether a block of one output returns it in a tuple.
    """

    path: str
    inputs: Mapping[str, Arg]
    outputs: tuple[str, ...]
    joined_order: str = TEXT_FIRST
    must_run: Callable[[tuple[Any, ...], dict[str, Any]], bool] | None = None
    in_place: bool = False
    packed: bool = False

    def read_input(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What was passed for a name, however it was passed; None if it was not."""
        arg = self.inputs.get(name)
        return None if arg is None else arg.read(args, kwargs)

    def read_output(self, name: str, output: Any) -> Any:
        """The returned tensor of a stream."""
        return output if self._is_bare else output[self.outputs.index(name)]

    def pack_output(self, streams: Mapping[str, Any]) -> Any:
        """A block's return value made of streams."""
        values = tuple(streams[name] for name in self.outputs)
        return values[0] if self._is_bare else values

    @property
    def _is_bare(self) -> bool:
        return len(self.outputs) == 1 and not self.packed

    @property
    def is_joined(self) -> bool:
        """Whether text and image tokens are one tensor here."""
        return JOINED in self.inputs

    def image_part(self, joined: torch.Tensor, text_tokens: int, image_tokens: int) -> torch.Tensor:
        """The image tokens of a joined tensor, as a view."""
        if self.joined_order == TEXT_FIRST:
            return joined[:, text_tokens:]
        return joined[:, :image_tokens]

    def text_part(self, joined: torch.Tensor, text_tokens: int, image_tokens: int) -> torch.Tensor:
        """The text tokens of a joined tensor, as a view."""
        if self.joined_order == TEXT_FIRST:
            return joined[:, :text_tokens]
        return joined[:, image_tokens:]

    def join(self, text: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Text and image tokens in this stack's order."""
        parts = (text, image) if self.joined_order == TEXT_FIRST else (image, text)
        return torch.cat(parts, dim=1)


@dataclass(frozen=True)
class SideBlocks:
    """Blocks beside the main ones, whose results are added between those.

    On a skipped evaluation nothing of theirs is read, so they need not run either.

    Parameters
    ----------
    path
        Where they are, as in a ``BlockStack``.
    own
        Their own stream, which one side block returns for the next.
    last_fed
        Given the network, the index of the last main block after which something is added; all
        must lie before the last skippable block.
    """

    path: str
    own: Arg
    last_fed: Callable[[Any], int]

    def skip(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[float, Any]:
        """What a side block that does not run returns: nothing to add, and its stream as it was."""
        return 0.0, self.own.read(args, kwargs)


class Tap(NamedTuple):
    """Where TeaCache reads its input: what goes into or comes out of a submodule.

    ``path`` starts at the first block, or at the network with ``of_network``. An input is the
    submodule's first argument, or the one named ``keyword``.
    """

    path: str
    of_network: bool = False
    output: bool = False
    keyword: str | None = None


HIDDEN_STATE = Tap("")
"""The hidden state before the first block itself."""


@dataclass(frozen=True)
class TeaCacheFit:
    """A published polynomial from input change to output change.

    Parameters
    ----------
    name
        As in the list of the node.
    coefficients
        Highest power first.
    threshold
        Recommended ``rel_l1_thresh``.
    first_steps
        Steps at the start that the publication always computes.
    tap
        Where the input is read, if elsewhere than the family's usual place.
    input_range
        Input changes on which it was fitted, where that is known; others are clipped to it.
    """

    name: str
    coefficients: tuple[float, ...]
    threshold: float
    first_steps: int = 1
    tap: Tap | None = None
    input_range: tuple[float, float] | None = None

    def estimate(self, change: float) -> float:
        """Estimated relative change of the output; never negative.

        Outside their fitted range published polynomials go negative, and a sum of them would sink
        for ever.
        """
        if self.input_range is not None:
            change = min(max(change, self.input_range[0]), self.input_range[1])
        value = 0.0
        for coefficient in self.coefficients:
            value = value * change + coefficient
        return max(value, 0.0)


class CacheDiTPreset(NamedTuple):
    """Cache-DiT settings that somebody published for a model.

    ``settings`` carries the names of ``CacheDiTSettings``; fields that are not named keep their
    defaults. ``source`` says where it was published.
    """

    models: str
    settings: Mapping[str, Any]
    source: str


class Spectrum(NamedTuple):
    """How strong the latents of an autoencoder are: ``A w^-beta`` at w cycles a picture.

    White noise has 1. ``source`` says who fitted it to what; ``guess`` marks one that was made for
    another autoencoder. ``packing`` is the side of the squares of values that the channels hold.
    """

    A: float
    beta: float
    source: str
    guess: bool = False
    packing: int = 1


class ExactLayers(NamedTuple):
    """Layers that somebody found to suffer from being quantized.

    ``patterns`` are parts of names, with ``*`` for anything; ``formats`` says in which they stay as
    they are, ``source`` who found it.
    """

    patterns: tuple[str, ...]
    formats: tuple[str, ...]
    source: str


GENERAL_PRESET = CacheDiTPreset("every model", {}, "SGLang-Diffusion's defaults")


PICTURE_GB, VIDEO_GB = 45.0, 120.0
"""Free memory in GB from which SGLang-Diffusion keeps a transformer it knows nothing else of."""


@dataclass(frozen=True)
class Family:
    """One family of diffusion transformers.

    Parameters
    ----------
    name
        The family's usual name.
    classes
        Names of the host's network classes, ``"package.module.Class"``, subclasses included.
    stacks
        Block stacks in the order in which they run.
    results
        Streams that are read after the last block.
    is_video
        Whether samples have a time axis (residuals are then much larger).
    last_blocks_need_all
        Whether last blocks read what skipped blocks would have made (long skip connections), so
        that Bn must be 0.
    refused
        Why this family cannot be cached at all, or empty.
    models
        What people call the models of this family, for the table in ``docs/models.md``.
    side
        Blocks beside the main ones.
    parts
        Parts of the latent in their order, where the host packs several into one. Without them
        only the first is taken to have the sampler's noise.
    tap
        TeaCache's input; None takes the hidden state before the first block.
    fits
        Published TeaCache polynomials (TeaCache, arXiv 2411.19108, and its repository).
    choose_fit
        Given a network, the name of the fit that was made for it, or None.
    cache_dit
        Published Cache-DiT settings for models of this family. Most families have none of their
        own and take the general defaults.
    spectrum
        Given a network, the spectrum of its latents; None where nobody has fitted or guessed one.
    one_size
        Why its latents cannot be made smaller, or empty: sound, and shapes without a grid.
    resident_from_gb
        Free memory in GB from which SGLang-Diffusion's automatic mode keeps the transformer on the
        device; 0 takes its general figures, ``PICTURE_GB`` and ``VIDEO_GB``.
    two_experts
        Whether checkpoints may come in pairs, one for high and one for low noise, of which the
        second samples the second part of a schedule.
    exact
        Layers of its blocks that stay as they are when the model is quantized.
    packed_latents
        Whether a place of the latent is a token as it is, so that the network, whose ``patch_size``
        is not asked, cuts no patches out of it.
    split, split_classes
        What of the blocks' calls runs along tokens, by the path of each stack; empty where it is
        not described. It holds for ``classes`` and these, and for no other subclass.
    """

    name: str
    classes: tuple[str, ...]
    stacks: tuple[BlockStack, ...]
    results: tuple[str, ...] = (IMAGE,)
    is_video: bool = False
    last_blocks_need_all: bool = False
    refused: str = ""
    models: str = ""
    side: tuple[SideBlocks, ...] = ()
    parts: tuple[LatentPart, ...] = ()
    tap: Tap | None = None
    fits: tuple[TeaCacheFit, ...] = ()
    choose_fit: Callable[[Any], str | None] | None = None
    cache_dit: tuple[CacheDiTPreset, ...] = (GENERAL_PRESET,)
    spectrum: Callable[[Any], Spectrum] | None = None
    one_size: str = ""
    resident_from_gb: float = 0.0
    two_experts: bool = False
    packed_latents: bool = False
    split: Mapping[str, TokenPlan] = field(default_factory=dict)
    split_classes: tuple[str, ...] = ()
    exact: tuple[ExactLayers, ...] = ()

    @property
    def resident_gb(self) -> float:
        """Free memory in GB from which the transformer stays on the device."""
        return self.resident_from_gb or (VIDEO_GB if self.is_video else PICTURE_GB)

    @property
    def in_place(self) -> bool:
        """Whether some of its blocks write into their input."""
        return any(stack.in_place for stack in self.stacks)

    def fit(self, name: str) -> TeaCacheFit | None:
        """The published fit of a name."""
        return next((fit for fit in self.fits if fit.name == name), None)


@dataclass(frozen=True)
class Structure:
    """A family as found on one network.

    ``counts`` holds the number of blocks of each stack; ``source`` says how it was found.
    """

    family: Family
    counts: tuple[int, ...]
    source: str = "known family"

    @property
    def block_count(self) -> int:
        """Number of blocks of all stacks."""
        return sum(self.counts)

    def blocks(self, network: Any) -> list[tuple[BlockStack, torch.nn.Module]]:
        """Every block with its stack, in running order, as they are in the network now."""
        return [
            (stack, block)
            for stack in self.family.stacks
            for block in blocks_at(network, stack.path)
        ]

    def idle_blocks(self, network: Any, last: int) -> list[tuple[SideBlocks, torch.nn.Module]]:
        """Side blocks that need not run when main blocks up to ``last`` are skipped."""
        plain = getattr(network, "_orig_mod", network)
        return [
            (side, block)
            for side in self.family.side
            if side.last_fed(plain) < last
            for block in blocks_at(network, side.path)
        ]

    def tapped_module(self, network: Any, tap: Tap) -> torch.nn.Module | None:
        """The submodule that a tap reads, None if this network has none there."""
        owner = network if tap.of_network else self.blocks(network)[0][1]
        owner = getattr(owner, "_orig_mod", owner)
        found = reduce(lambda at, name: getattr(at, name, None), tap.path.split("."), owner)
        return found if isinstance(found, torch.nn.Module) else None


def blocks_at(network: Any, path: str) -> list[torch.nn.Module]:
    """The blocks of the ModuleList or ModuleDict at a dotted path; empty if there is none."""
    container = reduce(lambda owner, name: getattr(owner, name, None), path.split("."), network)
    if isinstance(container, torch.nn.ModuleDict):
        return list(container.values())
    return list(container) if isinstance(container, torch.nn.ModuleList) else []
