"""Demo-only node pack: link this folder into ``custom_nodes`` to run the demo workflows.

It lends the host a tiny, really trained diffusion transformer (``models/``), a prompt node, a
decoder and a stopwatch. The acceleration nodes themselves do not need any of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


async def comfy_entrypoint() -> Any:
    """Entry point of the host's V3 node loader; also makes the stock loader list the model."""
    import folder_paths

    from .demo_nodes import DemoExtension

    models = Path(__file__).resolve().parent / "models"
    folder_paths.add_model_folder_path("diffusion_models", str(models))
    return DemoExtension()
