"""What of a block's call runs along tokens, as data: what several GPUs have to cut with them.

The streams themselves are a ``BlockStack``'s. Here stands what goes with them: positions (rope),
masks, and everything that says "these tokens" by numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from .base import Arg

LOCAL_TEXT = "local text"
"""Tokens as a host counts them that adds the text's length to the image's: the text tokens of one
rank, then all of the image."""


class Along(NamedTuple):
    """A tensor with one entry a token (or one for all) along ``dim``; in a tuple every tensor."""

    arg: Arg
    dim: int
    tokens: str


class Ranges(NamedTuple):
    """``[(start, end, …), …]`` over tokens, whatever stands behind the two; end None is all."""

    arg: Arg
    tokens: str


class Count(NamedTuple):
    """A number n that means "the first n tokens"."""

    arg: Arg
    tokens: str


class Frames(NamedTuple):
    """A tensor ``[B, F, n, D]`` that the block repeats over the tokens of every frame.

    Image tokens are then cut between frames only. Of other shapes, or with one frame, it is for all
    tokens alike.
    """

    arg: Arg


Rule = Along | Ranges | Count | Frames


@dataclass(frozen=True)
class TokenPlan:
    """How the blocks of one stack are cut along tokens.

    Parameters
    ----------
    rules
        Arguments that go with the tokens, beside the streams.
    attention
        The block's submodule whose attention is over the tokens that are cut; empty where all of
        the block's is. Other attention (to the prompt) has its keys whole on every rank.
    control
        Name of the list from which the host adds to the image stream after each block, or empty.
    over
        The tokens that a block's attention calls are over, in turn; further ones are as the last.
        Empty: all that the blocks hold.
    enters
        Of side blocks, what the first of them is given whole.
    """

    rules: tuple[Rule, ...] = ()
    attention: str = ""
    control: str = ""
    over: tuple[str, ...] = ()
    enters: tuple[Along, ...] = ()


Split = Mapping[str, TokenPlan]
"""By the path of the stack."""
