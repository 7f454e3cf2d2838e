"""Nodes of the demo pack: prompt, decoder and stopwatch."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from comfy.patcher_extension import WrappersMP
from comfy_api.latest import ComfyExtension, io, ui

from .shapes import PROMPTS, UNCONDITIONAL, host_to_model, model_to_picture, text_embedding

CATEGORY = "DiT acceleration/demo"
KEY = "dit_acceleration_demo_stopwatch"
UPSCALE = 4


class DiTAccelDemoTextEncode(io.ComfyNode):
    """Look up one of the prompts that the demo model knows."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiTAccelDemoTextEncode",
            display_name="Demo Prompt",
            category=CATEGORY,
            description="One of the eight prompts of the demo model, or none for the negative.",
            inputs=[
                io.Combo.Input("prompt", options=[*PROMPTS, UNCONDITIONAL], default=PROMPTS[0])
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, prompt: str) -> io.NodeOutput:
        tokens, pooled = text_embedding(prompt)
        return io.NodeOutput([[tokens, {"pooled_output": pooled}]])


class DiTAccelDemoDecode(io.ComfyNode):
    """Turn a latent of the demo model into a picture by a fixed formula."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiTAccelDemoDecode",
            display_name="Demo Decode",
            category=CATEGORY,
            description="Latent to picture by formula: no VAE file is needed for the demo model.",
            inputs=[io.Latent.Input("samples")],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, samples: dict[str, Any]) -> io.NodeOutput:
        return io.NodeOutput(decode(samples["samples"]))


class Record:
    """What one stopwatch saw of the latest sampling run.

    Attributes
    ----------
    seconds : float or None
        Wall time of the sampler's loop; None before the first run has ended.
    model_calls : int
        Calls of the model, cached or not; one call may hold the prompt and the negative.
    rows : int
        Pictures in all of these calls together, so a call with both counts twice per picture.
    """

    def __init__(self) -> None:
        self.seconds: float | None = None
        self.model_calls = 0
        self.rows = 0

    def time_run(self, executor: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Wrapper around the sampler's loop, which the host enters with the model loaded."""
        self.seconds, self.model_calls, self.rows = None, 0, 0
        begin = time.perf_counter()
        result = executor(*args, **kwargs)
        if isinstance(result, torch.Tensor) and result.is_cuda:
            torch.cuda.synchronize(result.device)  # queued work belongs to the run as well
        self.seconds = time.perf_counter() - begin
        return result

    def count_call(self, executor: Callable[..., Any], x: torch.Tensor, *a: Any, **kw: Any) -> Any:
        """Wrapper around one evaluation of the model on ``x``, shape [B, C, H, W]."""
        self.model_calls += 1
        self.rows += x.shape[0]
        return executor(x, *a, **kw)

    def text(self) -> str:
        """The figures as JSON."""
        seconds = None if self.seconds is None else round(self.seconds, 4)
        return json.dumps({"seconds": seconds, "model_calls": self.model_calls, "rows": self.rows})

    def sentence(self) -> str:
        """The figures in words."""
        if self.seconds is None:
            return "No sampling run has ended yet."
        return f"{self.seconds:.2f} s for {self.model_calls} model calls"


class DiTAccelDemoStopwatch(io.ComfyNode):
    """Measure every sampling run of the model that passes through."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiTAccelDemoStopwatch",
            display_name="Demo Stopwatch",
            category=CATEGORY,
            description="Times the sampling runs of this model, without the time to load it.",
            inputs=[io.Model.Input("model")],
            outputs=[io.Model.Output()],
            # Two stopwatches on one model must stay two, where the host would merge equal nodes.
            not_idempotent=True,
        )

    @classmethod
    def execute(cls, model: Any) -> io.NodeOutput:
        model, record = model.clone(), Record()
        # An older stopwatch upstream would go on counting for nobody.
        model.remove_wrappers_with_key(WrappersMP.SAMPLER_SAMPLE, KEY)
        model.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, KEY)
        model.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, KEY, record.time_run)
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, record.count_call)
        model.set_attachments(KEY, record)
        return io.NodeOutput(model)


class DiTAccelDemoStopwatchRead(io.ComfyNode):
    """Show what the stopwatch of a model measured, once a latent is there."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiTAccelDemoStopwatchRead",
            display_name="Demo Stopwatch Read",
            category=CATEGORY,
            description="Shows seconds and model calls of the run that made the latent.",
            inputs=[
                io.Model.Input("model", tooltip="The model that went through the stopwatch."),
                io.Latent.Input("after", tooltip="The result of the run to be reported."),
            ],
            outputs=[io.Latent.Output(), io.String.Output(display_name="text")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model: Any, after: dict[str, Any]) -> io.NodeOutput:
        record = model.get_attachment(KEY)
        if record is None:
            raise ValueError("This model did not go through a Demo Stopwatch node.")
        return io.NodeOutput(after, record.sentence(), ui=ui.PreviewText(record.text()))


class DemoExtension(ComfyExtension):
    """The demo nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            DiTAccelDemoTextEncode,
            DiTAccelDemoDecode,
            DiTAccelDemoStopwatch,
            DiTAccelDemoStopwatchRead,
        ]


def decode(samples: torch.Tensor) -> torch.Tensor:
    """Decode the host's samples, shape [B, 16, H, W], to RGB in 0..1, shape [B, 8H, 8W, 3]."""
    picture = model_to_picture(host_to_model(samples.detach().float().cpu()))
    large = F.interpolate(picture, scale_factor=UPSCALE, mode="bicubic", align_corners=False)
    return large.clamp(0, 1).movedim(1, -1).contiguous()
