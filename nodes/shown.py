"""What a node shows on itself when it has run."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

MOST_PICTURES = 8
"""Of a batch or a video, spread evenly: enough to look through."""


def spread(pictures: Any) -> Any:
    """At most ``MOST_PICTURES`` of a batch ``[N, H, W, C]``, the first and the last among them."""
    count = len(pictures)
    if count <= MOST_PICTURES:
        return pictures
    return pictures[[round(n * (count - 1) / (MOST_PICTURES - 1)) for n in range(MOST_PICTURES)]]


def temporary(pictures: Any, cls: type[io.ComfyNode]) -> list[Any]:
    """Save an IMAGE in the host's temp folder; as items for a node's ``ui``."""
    found: list[Any] = ui.PreviewImage(pictures, cls=cls).as_dict()["images"]
    return found
