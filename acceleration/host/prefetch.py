"""What newer hosts do around a model's blocks that a skipped block must not be part of.

A host may stream the weights of a block before its loop calls the block (LTX-2 and MiniMax-H3 from
0.30 on, more families later), record what a network allocates in order to lay it out once (Comfy
Compiler, 0.34 on), and replay a block as a CUDA graph. All three live in ``comfy.model_prefetch``;
where the host has no such module, or not all of it, the functions here do nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

_MODULE = "comfy.model_prefetch"

REPLAYED = (
    "this ComfyUI replays blocks of this model as CUDA graphs, in which nothing can be skipped, so "
    "the model runs uncached; start ComfyUI with --disable-cuda-graphs to use caching"
)


def leave_out(skipped: Iterable[torch.nn.Module]) -> int:
    """Take blocks that are not going to run out of the queue from which their weights are streamed.

    The model's loop pops one entry before every block and once after the last, whether the block
    then runs or not. So the queue keeps its length, and an entry of None moves nothing. An entry
    that was popped already holds weights that are on their way; the next pop releases them.

    Returns the number of entries that were taken out: 0 where this evaluation streams nothing.
    """
    blocks = [_plain(block) for block in skipped]
    own = {id(block) for block in blocks}
    parts: set[int] = set()
    # Every evaluation makes a queue of its own, and used ones stay until the prompt has ended.
    for queue in reversed(getattr(sys.modules.get(_MODULE), "PREFETCH_QUEUES", ())):
        if any(isinstance(entry, list) for entry in queue) and not parts:
            parts = {id(part) for block in blocks for part in block.modules()}
        found = [at for at, entry in enumerate(queue) if _belongs(entry, own, parts)]
        for at in found:
            queue[at] = None
        if found:
            return len(found)
    return 0


def _plain(module: torch.nn.Module) -> torch.nn.Module:
    """A module without the wrapper that the compiler puts around it."""
    plain: torch.nn.Module = getattr(module, "_orig_mod", module)
    return plain


def _belongs(entry: Any, own: set[int], parts: set[int]) -> bool:
    """Whether all that an entry streams is of the blocks ``own``, which are made of ``parts``."""
    if isinstance(entry, torch.nn.Module):
        return id(_plain(entry)) in own
    # What was popped is a tuple.
    return isinstance(entry, list) and bool(entry) and all(id(_plain(m)) in parts for m in entry)


def outliving() -> AbstractContextManager[Any]:
    """A context in which tensors are made that outlive the evaluation of the network.

    What is allocated in a recorded part of the network has to be gone where that part ends; inside
    this context nothing is recorded. It is not to be nested.
    """
    pause = getattr(sys.modules.get(_MODULE), "pause_malloc_graph", None)
    return pause() if pause is not None else nullcontext()


def captured(block: torch.nn.Module) -> bool:
    """Whether the host replays a block without calling it, or is about to record it for that.

    A host runs a block once as a trial, records it the next time, with a gate that is on it or
    without, and from then on replays what it has recorded.
    """
    if getattr(block, "_comfy_graph", None) is not None:
        return True
    tried = getattr(sys.modules.get(_MODULE), "GRAPH_WARMED_MODULES", ())
    return block in tried or _plain(block) in tried


def obstacle(blocks: Iterable[torch.nn.Module]) -> str | None:
    """Why gates on these blocks would not work, for people, or None."""
    return REPLAYED if any(map(captured, blocks)) else None
