"""Which tokens a rank holds.

Image and text are cut each for itself, so that every rank has a share of both; a joined stream is,
on a rank, its share of the text and then its share of the image. Attention without a mask does not
care in which order keys come, so nothing is put in order for it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch

from ..errors import AccelerationError
from ..families.base import IMAGE, JOINED, TEXT
from ..families.tokens import LOCAL_TEXT


def shares(total: int, ranks: int, grain: int = 1) -> tuple[int, ...]:
    """How many of ``total`` each rank gets: whole grains, as even as they allow, the first more."""
    each, more = divmod(total // grain, ranks)
    return tuple((each + (rank < more)) * grain for rank in range(ranks))


def require_enough(ranks: int, tokens: int, frames: int = 0) -> None:
    """Raise AccelerationError where a picture or video is too small to be shared.

    ``frames`` is their number where each has a time of its own and so stays whole, else 0.
    """
    if (frames or tokens) < ranks:
        what = "one token" if tokens == 1 else f"{tokens} tokens"
        if frames:
            what = f"{frames} frames with a time of their own"
        raise AccelerationError(
            f"this picture or video has {what}, which {ranks} GPUs cannot share: use fewer GPUs, "
            "or split batch."
        )


class Layout:
    """The tokens of one call of the network, cut over ranks.

    Parameters
    ----------
    rank, ranks
        Which of how many this is.
    lengths
        Numbers of tokens by stream: ``image``, and ``text`` where blocks hold text as well.
    grain
        Tokens of the image that stay together.

    Raises
    ------
    AccelerationError
        When the image has fewer grains than there are ranks.
    """

    def __init__(self, rank: int, ranks: int, lengths: Mapping[str, int], grain: int = 1) -> None:
        self.rank, self.ranks, self.grain = rank, ranks, grain
        units = lengths[IMAGE] // grain
        require_enough(ranks, lengths[IMAGE], units if grain > 1 else 0)
        self.shares = {
            name: shares(length, ranks, grain if name == IMAGE else 1)
            for name, length in lengths.items()
        }

    def of(self, tokens: str) -> Layout:
        """The same for some of the streams: those that ``tokens`` names."""
        if tokens == JOINED or set(self.shares) == {tokens}:
            return self
        some = copy.copy(self)
        some.shares = {tokens: self.shares[tokens]}
        return some

    def span(self, stream: str) -> tuple[int, int]:
        """Where this rank's tokens of a stream begin and end; nowhere in a stream that is none."""
        sizes = self.shares.get(stream)
        if sizes is None:
            return 0, 0
        begin = sum(sizes[: self.rank])
        return begin, begin + sizes[self.rank]

    def length(self, stream: str) -> int:
        """Tokens of a stream on all ranks together."""
        return sum(self.shares.get(stream, ()))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Tokens of all streams together, by rank."""
        return tuple(map(sum, zip(*self.shares.values(), strict=True)))

    def total(self, tokens: str) -> int:
        """How many tokens an argument has that goes along ``tokens``."""
        text, image = self.length(TEXT), self.length(IMAGE)
        if tokens == LOCAL_TEXT:
            begin, end = self.span(TEXT)
            return end - begin + image
        return {TEXT: text, IMAGE: image, JOINED: text + image}[tokens]

    def pieces(self, tokens: str) -> list[tuple[int, int]]:
        """What this rank takes of such an argument, in the order in which it holds it."""
        image, text = self.span(IMAGE), self.span(TEXT)
        if tokens in (IMAGE, TEXT):
            return [self.span(tokens)]
        here = text[1] - text[0]
        before = self.length(TEXT)
        if tokens == LOCAL_TEXT:
            text, before = (0, here), here
        return [text, (before + image[0], before + image[1])]

    def take(self, tensor: torch.Tensor, dim: int, tokens: str) -> torch.Tensor:
        """This rank's part of a tensor, which may be a view. One entry for all tokens stays.

        Raises
        ------
        AccelerationError
            When the tensor has another number of entries than there are tokens.
        """
        dim %= tensor.ndim
        if tensor.shape[dim] == 1:
            return tensor
        if tensor.shape[dim] != self.total(tokens):
            raise AccelerationError(
                f"an argument of shape {tuple(tensor.shape)} was expected to have "
                f"{self.total(tokens)} entries along dimension {dim}, one a token, so this model "
                "cannot be split along tokens as it is used here: use split batch."
            )
        parts = [tensor.narrow(dim, a, b - a) for a, b in self.pieces(tokens) if b > a]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim)

    def cut(self, ranges: Sequence[Sequence[Any]], tokens: str) -> list[tuple[Any, ...]]:
        """``[(start, end, …), …]`` over all tokens as the same over this rank's."""
        return [cut for each in ranges for cut in self._cut_one(each, tokens)]

    def _cut_one(self, each: Sequence[Any], tokens: str) -> Iterator[tuple[Any, ...]]:
        start, end, *rest = each
        end, offset = self.total(tokens) if end is None else end, 0
        for begin, until in self.pieces(tokens):
            first, last = max(start, begin), min(end, until)
            if first < last:
                yield first - begin + offset, last - begin + offset, *rest
            offset += until - begin

    def count(self, first: int, tokens: str) -> int:
        """How many of the first ``first`` tokens are this rank's."""
        begin, end = self.span(tokens)
        return min(max(first - begin, 0), end - begin)

    def order(self, device: torch.device) -> torch.Tensor:
        """Places in the whole joined sequence of the tokens as ranks hold them, rank by rank."""
        begins = {name: [0, *accumulate(sizes)] for name, sizes in self.shares.items()}
        text = self.length(TEXT)
        places: list[int] = []
        for rank in range(self.ranks):
            for name, before in ((TEXT, 0), (IMAGE, text)):
                if name in begins:
                    first, last = begins[name][rank : rank + 2]
                    places += range(before + first, before + last)
        return torch.tensor(places, device=device)
