"""What the tests of torch.compile share: the host's own wrapper, and a compiler begun anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._dynamo.utils import counters


def compiled(model: Any, keys: list[str], backend: str | Callable[..., Any] = "eager") -> Any:
    """A clone of a MODEL whose parts ``keys`` the host compiles when it runs.

    ``eager`` runs what was traced as it is.
    """
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    clone = model.clone()
    set_torch_compile_wrapper(clone, backend=backend, keys=keys)
    return clone


@contextmanager
def compiler_anew(**options: int) -> Iterator[None]:
    """Compiles anew inside, and fails where the compiler would give up silently."""
    torch._dynamo.reset()
    counters.clear()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True, **options):
        yield
    torch._dynamo.reset()
