"""ComfyUI-DiT-Acceleration: diffusion transformers that sample faster and say what they did."""

from __future__ import annotations

from typing import Any

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> Any:
    """Entry point of the host's V3 node loader."""
    from .nodes import DiTAccelerationExtension

    return DiTAccelerationExtension()
