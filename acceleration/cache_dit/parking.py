"""Keeps the tensors inside somebody else's state in our store while nobody computes with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..store.compact import FP8, FULL
from ..store.residual_store import Kept, ResidualStore


def replaced(
    value: Any, kind: type, replace: Callable[[Any], Any], leave: tuple[str, ...] = ()
) -> Any:
    """A copy of nested containers with every object of one type replaced.

    What lies under a key in ``leave`` stays as it is.
    """
    if isinstance(value, kind):
        return replace(value)
    if isinstance(value, dict):
        return {k: v if k in leave else replaced(v, kind, replace, leave) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(replaced(v, kind, replace, leave) for v in value)
    return value


class Parking:
    """Moves the tensors of a state (nested dicts, lists and tuples) into a store and back.

    A tensor that comes back as it went out returns to the place it came from, so that nothing is
    copied or rounded twice.
    """

    def __init__(self, store: ResidualStore, coarsest: str = FP8) -> None:
        self._store = store
        self._coarsest = coarsest
        self._out: dict[int, tuple[torch.Tensor, Kept]] = {}

    def fetch(
        self, state: dict[str, Any], device: torch.device, leave: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        """The state with its tensors on ``device``, except under the keys in ``leave``."""
        fetched: dict[int, torch.Tensor] = {}

        def get(kept: Kept) -> torch.Tensor:
            if id(kept) not in fetched:
                tensor = fetched[id(kept)] = self._store.get(kept, device)
                self._out[id(tensor)] = (tensor, kept)
            return fetched[id(kept)]

        result: dict[str, Any] = replaced(state, Kept, get, leave)
        return result

    def park(self, state: dict[str, Any], shape: torch.Size | None) -> dict[str, Any]:
        """The state with every tensor in the store.

        Tensors of another shape than ``shape``, such as the matrices of a fit, keep their exact
        values.
        """

        def put(tensor: torch.Tensor) -> Kept:
            if id(tensor) not in self._out:
                coarsest = self._coarsest if tensor.shape == shape else FULL
                self._out[id(tensor)] = (tensor, self._store.put(tensor, coarsest))
            return self._out[id(tensor)][1]

        result: dict[str, Any] = replaced(state, torch.Tensor, put)
        self._out.clear()
        return result


def kept_in(state: Any) -> list[Kept]:
    """Everything of a state that is in the store."""
    found: list[Kept] = []
    replaced(state, Kept, found.append)
    return found
