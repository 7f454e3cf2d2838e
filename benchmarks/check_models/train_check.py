"""Train the two check models: ComfyUI's own Qwen-Image and HunyuanVideo classes, at two sizes each.

NOTHING MAY BE TUNED ON THESE MODELS. No constant of the pack, no preset, no plan is chosen by what
they show: benchmarks only report on them, so that a figure of theirs says what to expect of a model
that nobody has tuned anything on. Whoever needs a model to tune on takes the demo's, or trains
another with another seed.

    export OMP_NUM_THREADS=1 COMFYUI_PATH=/path/to/ComfyUI
    python benchmarks/check_models/train_check.py qwen_image
    python benchmarks/check_models/train_check.py hunyuan_video

The seed and the number of steps fix a run. Every batch is drawn from the number of its step, so a
run that was stopped goes on where its last checkpoint was kept (``--state``), as if nothing had
been. First steps see the small size only, which is cheap; then every step sees both.
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from networks import NETWORKS, Network
from scenes import UNCONDITIONAL, draw, smaller, to_latent
from torch import nn

from host import add_host_argument, import_host  # isort: skip  (scenes puts its folder on the path)
from train import OPERATIONS, save  # isort: skip
from train_wan import Muon  # isort: skip

HERE = Path(__file__).resolve().parent
QWEN_IMAGE, HUNYUAN_VIDEO = NETWORKS["Qwen-Image"], NETWORKS["HunyuanVideo"]
EMBEDDED = SimpleNamespace(**vars(OPERATIONS), Conv3d=nn.Conv3d)

BESIDE = ("mod", "txt_", "add_")
"""In names of matrices that work on a prompt or a time: too few tokens to be worth Muon's time."""

FEWER = 4
"""How many times fewer values a small picture has."""


@dataclass(frozen=True)
class Recipe:
    """How one model is trained."""

    network: Network
    build: Callable[[], nn.Module]
    call: Callable[..., torch.Tensor]
    blocks: tuple[str, ...]
    """Attributes whose matrices Muon trains."""
    shift: float
    """Half of the noise levels are pushed up as the host's schedule pushes them."""
    batch: int
    steps: int
    small_steps: int
    """So many first steps see the small size only, with more pictures."""
    seed: int


def start(model: nn.Module, zeroed: tuple[str, ...]) -> nn.Module:
    """Usual first weights; layers whose names end so begin at zero, so blocks are the identity."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
            if name.endswith(zeroed):
                nn.init.zeros_(module.weight)
    return model


def build_qwen_image() -> nn.Module:
    from comfy.ldm.qwen_image.model import QwenImageTransformer2DModel

    model = QwenImageTransformer2DModel(
        dtype=torch.float32, operations=EMBEDDED, **QWEN_IMAGE.arguments
    )
    return start(model, ("img_mod.1", "txt_mod.1", "norm_out.linear", "proj_out"))


def build_hunyuan_video() -> nn.Module:
    from comfy.ldm.hunyuan_video.model import HunyuanVideo

    model = HunyuanVideo(dtype=torch.float32, operations=EMBEDDED, **HUNYUAN_VIDEO.arguments)
    nn.init.xavier_uniform_(model.img_in.proj.weight.data.flatten(1))
    nn.init.zeros_(model.img_in.proj.bias)
    ends = ("_mod.lin", "modulation.lin", "adaLN_modulation.1", "final_layer.linear")
    return start(model, ends)


def call_qwen_image(
    model: nn.Module, noisy: torch.Tensor, sigma: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    return model(noisy, sigma, tokens, transformer_options={})


def call_hunyuan_video(
    model: nn.Module, noisy: torch.Tensor, sigma: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    pooled = noisy.new_zeros(len(noisy), HUNYUAN_VIDEO.pooled)
    return model(noisy, sigma * 1000, tokens, pooled, transformer_options={})


RECIPES = {
    "qwen_image": Recipe(
        QWEN_IMAGE, build_qwen_image, call_qwen_image, ("transformer_blocks",),
        shift=3.0, batch=16, steps=1600, small_steps=600, seed=40,
    ),
    "hunyuan_video": Recipe(
        HUNYUAN_VIDEO, build_hunyuan_video, call_hunyuan_video, ("double_blocks", "single_blocks"),
        shift=6.0, batch=8, steps=1600, small_steps=800, seed=50,
    ),
}  # fmt: skip


def batch_of(
    recipe: Recipe, step: int, side: int, count: int, dropout: float
) -> tuple[torch.Tensor, ...]:
    """Noisy latents ``[B, 16, F, side, side]``, their σ ``[B]``, tokens, and the target."""
    canvas = recipe.network.canvas
    g = torch.Generator().manual_seed((recipe.seed * 1_000_003 + step) * 100 + side)
    # Every prompt equally often: less noisy gradients than random labels.
    labels = torch.arange(count) % len(canvas.prompts)
    clean = to_latent(draw(canvas, labels, g))
    clean = clean if side == canvas.side else smaller(clean, side)
    noise = torch.randn(clean.shape, generator=g)
    u = (torch.randperm(count, generator=g) + torch.rand(count, generator=g)) / count
    pushed = recipe.shift * u / (1 + (recipe.shift - 1) * u)
    sigma = torch.where(torch.rand(count, generator=g) < 0.5, pushed, u)
    texts = torch.cat([canvas.tokens(text) for text in (*canvas.prompts, UNCONDITIONAL)])
    dropped = torch.rand(count, generator=g) < dropout
    tokens = texts[torch.where(dropped, len(canvas.prompts), labels)]
    s = sigma[:, None, None, None, None]
    return (1 - s) * clean + s * noise, sigma, tokens, noise - clean


def trapezoid(step: int, steps: int, warmup: int, cooldown: int) -> float:
    """Share of the peak rate: up, level, down. How long it is level may be decided on the way."""
    return min(1.0, (step + 1) / warmup, (steps - step) / cooldown)


class Training:
    """Weights, their average, optimizers, and the step they are at."""

    def __init__(self, recipe: Recipe, args: argparse.Namespace) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.args, self.step = recipe, args, 0
        self.model = recipe.build()
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        call = recipe.call
        self.call = torch.compile(call) if args.compile else call
        inside = [p for name in recipe.blocks for p in getattr(self.model, name).named_parameters()]
        hidden = [p for name, p in inside if p.ndim == 2 and not any(k in name for k in BESIDE)]
        ids = {id(p) for p in hidden}
        rest = [p for p in self.model.parameters() if id(p) not in ids]
        self.adam = torch.optim.AdamW(
            rest, lr=args.lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True
        )
        self.muon = Muon(hidden, args.muon, torch.float32)
        self.peaks = [(self.adam, args.lr), (self.muon, args.muon)]

    def keep(self, path: Path) -> None:
        """Write all that the next steps depend on."""
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "adam": self.adam.state_dict(),
            "muon": [average for _, average in self.muon.alike],
        }
        torch.save(state, path.with_suffix(".part"))
        os.replace(path.with_suffix(".part"), path)

    def go_on_from(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.adam.load_state_dict(state["adam"])
        for (_, average), kept in zip(self.muon.alike, state["muon"], strict=True):
            average.copy_(kept)

    def sizes(self) -> list[tuple[int, int]]:
        """Sides that this step sees, with how many pictures each."""
        full, batch = self.recipe.network.canvas.side, self.recipe.batch
        if self.step < self.recipe.small_steps:
            return [(full // 2, FEWER * batch)]
        return [(full // 2, batch), (full, batch)]

    def advance(self) -> dict[int, float]:
        """One step; the loss of each side."""
        losses, args, sizes = {}, self.args, self.sizes()
        for side, count in sizes:
            noisy, sigma, tokens, target = batch_of(
                self.recipe, self.step, side, count, args.dropout
            )
            with torch.autocast("cpu", torch.bfloat16, enabled=args.autocast):
                output = self.call(self.model, noisy, sigma, tokens)
            loss = F.mse_loss(output.float(), target)
            (loss / len(sizes)).backward()
            losses[side] = loss.item()
        for parameter in self.model.parameters():
            # What the last block makes of the prompt's tokens leads nowhere.
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, peak in self.peaks:
            rate = trapezoid(self.step, self.recipe.steps, args.warmup, args.cooldown)
            optimizer.param_groups[0]["lr"] = rate * peak
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        # The average forgets the early steps quickly and the late ones slowly.
        decay = min(args.ema, (1 + self.step) / (10 + self.step))
        pairs = zip(self.average.parameters(), self.model.parameters(), strict=True)
        with torch.no_grad():
            for average, now in pairs:
                average.lerp_(now, 1 - decay)
        self.step += 1
        return losses


def train(training: Training, output: Path, state: Path) -> None:
    args, begun, sums = training.args, time.time(), {}
    last = min(training.recipe.steps, args.stop or training.recipe.steps)
    while training.step < last:
        for side, loss in training.advance().items():
            sums.setdefault(side, []).append(loss)
        step = training.step
        if step % args.log_every == 0:
            means = "  ".join(f"{s}: {sum(x) / len(x):.4f}" for s, x in sums.items())
            print(f"step {step}  loss {means}  {time.time() - begun:.0f} s", flush=True)
            sums.clear()
        if step % args.save_every == 0 or step == last:
            training.keep(state)
            save(training.average, output, step)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_host_argument(parser)
    parser.add_argument("model", choices=RECIPES)
    parser.add_argument("--output", type=Path, help="default: beside this script")
    parser.add_argument("--state", type=Path, help="the checkpoint; default: beside this script")
    parser.add_argument("--anew", action="store_true", help="do not go on from the checkpoint")
    parser.add_argument("--stop", type=int, help="end after this step")
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--muon", type=float, default=0.02, help="Muon's rate for the blocks")
    parser.add_argument("--warmup", type=int, default=60)
    parser.add_argument("--cooldown", type=int, default=150)
    parser.add_argument("--ema", type=float, default=0.97)
    parser.add_argument("--dropout", type=float, default=0.12)
    parser.add_argument("--autocast", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--log-every", type=int, default=25)
    parser.add_argument("--save-every", type=int, default=50)
    args = parser.parse_args()
    import_host(args.comfyui)
    import comfy.model_management

    # Makes the host apply rotary embeddings by plain operations that autograd understands.
    comfy.model_management.in_training = True
    state = args.state or HERE / f"{args.model}.state"
    training = Training(RECIPES[args.model], args)
    if state.exists() and not args.anew:
        training.go_on_from(state)
        print(f"going on from step {training.step}", flush=True)
    train(training, args.output or RECIPES[args.model].network.file, state)


if __name__ == "__main__":
    main()
