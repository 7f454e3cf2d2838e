"""Loaders for the ranks of Split Across GPUs in tests: tiny models, some of which misbehave.

What is to go wrong is said by a file, as the network is in another process: its text is
``what rank block``.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

SIGN = "SPLIT_TESTS_SIGN"
"""Variable that names the file."""


def tiny(name: str, seed: int = 0) -> Any:
    """A MODEL that says how it is loaded again."""
    from tiny_models import make_model

    model = make_model(name, seed=seed)
    model.cached_patcher_init = (tiny, (name, seed))
    for number, block in enumerate(_blocks(model)):
        block.register_forward_pre_hook(_watch(number))
    return model


def _blocks(model: Any) -> Any:
    network = model.model.diffusion_model
    return getattr(network, "single_blocks", None) or getattr(network, "blocks", None) or []


def _watch(number: int) -> Any:
    def before(module: Any, args: Any) -> None:
        file = Path(os.environ.get(SIGN, ""))
        if not file.is_file():
            return
        what, rank, block = file.read_text(encoding="utf-8").split()
        if int(block) != number or not _is(int(rank)):
            return
        if what == "die":
            file.unlink()
            os._exit(1)
        if what == "sleep":
            time.sleep(1.0)
        if what == "memory":
            file.unlink()
            import torch

            raise torch.OutOfMemoryError("out of memory, made on purpose")
        if what == "fail":
            raise RuntimeError("failed on purpose")

    return before


def process(rank: Any) -> int:
    """Number of the process; called in it."""
    return os.getpid()


def kept(rank: Any) -> int:
    """Bytes of all tensors but weights that live in the process it is called in.

    Some are constants of modules that cache-dit brings along, which the first run with caching
    imports; they are here from the beginning.
    """
    import gc

    import cache_dit  # noqa: F401
    import torch

    gc.collect()
    found = [one for one in gc.get_objects() if isinstance(one, torch.Tensor)]
    return sum(t.nbytes for t in found if not isinstance(t, torch.nn.Parameter))


def _is(rank: int) -> bool:
    import torch.distributed as dist

    return dist.is_initialized() and dist.get_rank() == rank
