"""The check models: what benchmarks report on, and what nothing is tuned on."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import harness
from harness import ROOT

if TYPE_CHECKING:
    import torch

FOLDER = ROOT / "benchmarks" / "check_models"


class CheckDemo(harness.Demo):
    """A check model with its prompts and its decoder; it draws at its full and at half its side."""

    def __init__(self, name: str) -> None:
        if str(FOLDER) not in sys.path:
            sys.path.append(str(FOLDER))
        self.scenes = importlib.import_module("scenes")
        self.network = importlib.import_module("networks").NETWORKS[name]
        self.canvas = self.network.canvas
        self.prompts = self.canvas.prompts
        self.calls = 0
        self.model = self.load()

    def load(self) -> Any:
        """A MODEL of the host's own classes, whose calls are counted."""
        import comfy.model_management
        import comfy.model_patcher
        import comfy.supported_models
        import comfy.utils
        import torch
        from comfy.patcher_extension import WrappersMP

        device = comfy.model_management.get_torch_device()
        config = getattr(comfy.supported_models, self.network.config)(self.network.arguments)
        config.set_inference_dtype(torch.float32, None)
        weights = comfy.utils.load_torch_file(str(self.network.file))
        inside = config.get_model(weights, "", device=torch.device("cpu"))
        inside.load_model_weights(weights, "")
        model = comfy.model_patcher.ModelPatcher(inside, device, torch.device("cpu"))
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "benchmark_count", self._count)
        return model

    def empty(self, side: int | None = None) -> torch.Tensor:
        import torch

        return torch.zeros(1, *self.canvas.shape(side))

    def conditioning(self, prompt: str | None) -> list[Any]:
        import torch

        more = {"pooled_output": torch.zeros(1, self.network.pooled)} if self.network.pooled else {}
        return [[self.canvas.tokens(prompt or self.scenes.UNCONDITIONAL), more]]

    def scene(self, latent: torch.Tensor) -> torch.Tensor:
        """RGB in 0..1, ``[F, S, S, 3]``, of a latent as the sampler returns it."""
        inside = self.model.model.process_latent_in(latent.float().cpu())
        return self.scenes.to_scene(inside)[0].permute(1, 2, 3, 0)

    def picture(self, latent: torch.Tensor) -> Any:
        """Every frame beside the other, ``[S, F * S, 3]``, as a numpy array."""
        frames = self.scene(latent)
        return frames.transpose(0, 1).flatten(1, 2).numpy()


CHECKS: dict[str, Callable[[], CheckDemo]] = {
    name: functools.partial(CheckDemo, name) for name in ("Qwen-Image", "HunyuanVideo")
}
"""By the name of their architecture."""
