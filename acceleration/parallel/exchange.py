"""Attention over tokens that lie on several ranks: two exact ways around any kernel.

``keys``: every rank attends its own queries to everybody's keys and values, which are gathered.
``ulysses`` (DeepSpeed-Ulysses, arXiv 2309.14509): tokens go in, heads come out; every rank attends
all queries of its share of the heads, and gives back.

No ring: the host's kernels return no sums of exponentials, and ``keys`` sends what a ring sends.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..attention.call import Arguments
from ..errors import AccelerationError
from ..families.base import JOINED
from .group import Group
from .layout import Layout, shares

Kernel = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, int, torch.Tensor | None, bool, bool], torch.Tensor
]
"""``(q, k, v, heads, mask, heads_first, heads_first_out)``"""


def chosen(exchange: str, ranks: int, heads: int, key_heads: int) -> str:
    """Which exchange serves a call.

    On two ranks both send as much, and keys asks less often; on more, ulysses sends less, but gives
    every rank a head, and grouped heads cannot be dealt out like others.
    """
    if heads < ranks or key_heads != heads:
        return "keys"
    if exchange == "auto":
        return "keys" if ranks == 2 else "ulysses"
    return exchange


def attend(
    a: Arguments, layout: Layout, group: Group, exchange: str, kernel: Kernel
) -> torch.Tensor:
    """Attention of this rank's tokens to all.

    Parameters
    ----------
    a
        The call, with this rank's tokens in query, key and value. A mask may have one entry for
        this rank's keys (as a block makes it) or for all.
    kernel
        Computes attention on one rank.

    Raises
    ------
    AccelerationError
        For causal attention, and where the mask fits neither.
    """
    if a.causal:
        raise AccelerationError(
            "this model's attention is causal, and its tokens cannot be split: use split batch."
        )
    key_heads = a.k.shape[1] if a.heads_first else a.heads
    if not a.heads_first and a.k.shape[2:].numel() != a.q.shape[2:].numel():
        key_heads = 0  # Grouped heads, in a row: how many does not matter here.
    if chosen(exchange, group.size, a.heads, key_heads) == "keys":
        return _keys(a, layout, group, kernel)
    return _ulysses(a, layout, group, kernel)


def _keys(a: Arguments, layout: Layout, group: Group, kernel: Kernel) -> torch.Tensor:
    dim = 2 if a.heads_first else 1
    k = group.gather(a.k, dim, layout.sizes)
    v = group.gather(a.v, dim, layout.sizes)
    mask = _with_all_keys(a.mask, layout, group)
    if mask is not None and mask.ndim > 1 and mask.shape[-2] not in (1, a.q.shape[dim]):
        mask = layout.take(mask, -2, JOINED)
    return kernel(a.q, k, v, a.heads, mask, a.heads_first, a.heads_first_out)


def _ulysses(a: Arguments, layout: Layout, group: Group, kernel: Kernel) -> torch.Tensor:
    heads, sizes, rank = shares(a.heads, group.size), layout.sizes, group.rank
    mine, own = heads[rank], sizes[rank]
    parts = [_heads_first(t, a) for t in (a.q, a.k, a.v)]
    batch, widths = parts[0].shape[0], [t.shape[3] for t in parts]
    cut = [t.split(heads, 1) for t in parts]
    pieces = [torch.cat([c[to].reshape(-1) for c in cut]) for to in range(group.size)]
    got = group.swap(pieces, [batch * mine * n * sum(widths) for n in sizes])
    whole = [
        [
            flat.view(batch, mine, n, width)
            for flat, width in zip(
                piece.split([batch * mine * n * w for w in widths]), widths, strict=True
            )
        ]
        for piece, n in zip(got, sizes, strict=True)
    ]
    q, k, v = (torch.cat(each, 2) for each in zip(*whole, strict=True))
    mask = _with_all_keys(a.mask, layout, group)
    out = kernel(q, k, v, mine, _for_heads(mask, layout, group, heads, own), True, True)
    width = out.shape[3]
    back = group.swap(
        [piece.reshape(-1) for piece in out.split(sizes, 2)],
        [batch * h * own * width for h in heads],
    )
    out = torch.cat([p.view(batch, h, own, width) for p, h in zip(back, heads, strict=True)], 1)
    return out if a.heads_first_out else out.transpose(1, 2).reshape(batch, own, -1)


def _heads_first(tensor: torch.Tensor, a: Arguments) -> torch.Tensor:
    """``[B, H, L, D]`` of either layout."""
    if a.heads_first:
        return tensor
    return tensor.reshape(tensor.shape[0], tensor.shape[1], a.heads, -1).transpose(1, 2)


def _with_all_keys(mask: torch.Tensor | None, layout: Layout, group: Group) -> torch.Tensor | None:
    """A mask over the keys as the ranks hold them, one rank behind the other."""
    if mask is None or mask.shape[-1] == 1:
        return mask
    if mask.shape[-1] == sum(layout.sizes):
        return mask.index_select(-1, layout.order(mask.device))
    if mask.shape[-1] == layout.sizes[layout.rank]:
        return group.gather(mask, -1, layout.sizes)
    raise AccelerationError(
        f"an attention mask of shape {tuple(mask.shape)} fits neither {sum(layout.sizes)} tokens "
        f"nor the {layout.sizes[layout.rank]} of one GPU: use split batch."
    )


def _for_heads(
    mask: torch.Tensor | None,
    layout: Layout,
    group: Group,
    heads: tuple[int, ...],
    own: int,
) -> torch.Tensor | None:
    """A mask for all queries, of this rank's heads."""
    if mask is None:
        return None
    rows = mask.shape[-2] if mask.ndim > 1 else 1
    if rows == sum(layout.sizes):
        mask = mask.index_select(-2, layout.order(mask.device))
    elif rows > 1 and rows == own:
        mask = group.gather(mask, -2, layout.sizes)
    if mask.ndim == 4 and mask.shape[1] > 1:
        mask = mask.split(heads, 1)[layout.rank]
    return mask
