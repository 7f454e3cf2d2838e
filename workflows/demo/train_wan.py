"""Train the tiny video model: ComfyUI's own Wan class on moving pictures drawn by formula.

Run ``python workflows/demo/train_wan.py --comfyui PATH`` (a ComfyUI checkout). The seed, the number
of steps and the batch size fix the run; an interrupted or slowed-down run is not shortened.

The weights in ``models/`` took 3,600 steps in four phases, each going on from the averaged weights
of the one before with fresh optimizers::

    export OMP_NUM_THREADS=2 COMFYUI_PATH=/path/to/ComfyUI
    python train_wan.py --variety 0.3 0.7 --ramp 700 --steps 1600 --stop 200 --checkpoints p1
    python train_wan.py --init p1/step_00200.safetensors --steps 1000 --stop 500 \\
        --warmup 40 --seed 31 --checkpoints p2
    python train_wan.py --init p2/step_00500.safetensors --steps 1600 --variety 0.6 0.6 \\
        --warmup 40 --seed 32 --checkpoints p3
    python train_wan.py --init p3/step_01600.safetensors --steps 1300 --variety 0.6 0.6 \\
        --warmup 40 --seed 33

Phase 1 ran with ``torch.optim.Muon``, which does the same one matrix after the other. Losses (mean
of the last 50 steps, of 20 in phase 2): 0.51, 0.29, 0.19, 0.17. The last two phases took 19 minutes
each on two cores that did other work as well.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from host import add_host_argument, import_host
from moving_shapes import (
    PROMPTS,
    TEXT_USED,
    TEXT_WIDTH,
    UNCONDITIONAL,
    draw,
    text_embedding,
    video_to_model,
)
from safetensors.torch import load_file
from torch import nn
from train import learning_rate, save

HERE = Path(__file__).resolve().parent
MODEL_FILE = HERE / "models" / "dit_accel_demo_wan.safetensors"

# What the host's model detection reads from the weight shapes, plus what it takes as given.
CONFIG = {
    "model_type": "t2v",
    "patch_size": (1, 2, 2),
    "in_dim": 16,
    "out_dim": 16,
    "dim": 128,
    "ffn_dim": 384,
    "freq_dim": 256,
    "text_dim": TEXT_WIDTH,
    "num_heads": 1,
    "num_layers": 12,
    "qk_norm": True,
    "cross_attn_norm": True,
}
TIMESTEPS = 1000  # the host hands the model sigma times this


def build_model() -> nn.Module:
    """Build the host's Wan class with every block starting as the identity."""
    from comfy.ldm.wan.model import WanModel

    model = WanModel(dtype=torch.float32, operations=nn, **CONFIG)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    embedding = model.text_embedding[0].weight
    nn.init.zeros_(embedding)  # most of its inputs are always zero
    nn.init.normal_(embedding[:, :TEXT_USED], std=TEXT_USED**-0.5)
    nn.init.xavier_uniform_(model.patch_embedding.weight.flatten(1))
    nn.init.zeros_(model.patch_embedding.bias)
    for layer in (model.time_embedding[0], model.time_embedding[2]):
        nn.init.normal_(layer.weight, std=0.02)
    nn.init.zeros_(model.time_projection[1].weight)
    for block in model.blocks:
        nn.init.zeros_(block.modulation)
        nn.init.zeros_(block.cross_attn.o.weight)
    nn.init.zeros_(model.head.modulation)
    nn.init.zeros_(model.head.head.weight)
    return model


class Data:
    """Endless batches of (noisy latent, timestep, tokens, target)."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.generator = torch.Generator().manual_seed(args.seed)
        self.tokens = torch.cat([text_embedding(p) for p in (*PROMPTS, UNCONDITIONAL)])
        self.drawn = 0

    def next(self, variety: float) -> tuple[torch.Tensor, ...]:
        """One batch: latents [B, 16, F, H, W], timesteps [B], tokens [B, L, D]."""
        g, batch = self.generator, self.args.batch
        # Every prompt equally often: less noisy gradients than random labels.
        labels = (torch.arange(batch) + self.drawn) % len(PROMPTS)
        self.drawn += batch
        clean = video_to_model(draw(labels, g, variety))
        noise = torch.randn(clean.shape, generator=g)
        # Stratified; for half of the batch pushed up to where the host's shifted schedule goes.
        u = (torch.randperm(batch, generator=g) + torch.rand(batch, generator=g)) / batch
        shift = self.args.shift
        sigma = torch.where(
            torch.rand(batch, generator=g) < 0.5, shift * u / (1 + (shift - 1) * u), u
        )
        s = sigma[:, None, None, None, None]
        drop = torch.rand(batch, generator=g) < self.args.dropout
        tokens = self.tokens[torch.where(drop, len(PROMPTS), labels)]
        return (1 - s) * clean + s * noise, sigma * TIMESTEPS, tokens, noise - clean


class Muon:
    """Momentum made orthogonal (Jordan et al. 2024), all matrices of one shape at a time.

    Learns faster than AdamW here; one small matrix after the other would take half of a step.
    """

    def __init__(
        self, parameters: list[nn.Parameter], lr: float, dtype: torch.dtype = torch.bfloat16
    ) -> None:
        self.param_groups = [{"lr": lr}]
        self.dtype = dtype
        self.momentum, self.weight_decay = 0.95, 0.01
        shapes: dict[torch.Size, list[nn.Parameter]] = {}
        for parameter in parameters:
            shapes.setdefault(parameter.shape, []).append(parameter)
        self.alike = [(same, torch.zeros(len(same), *shape)) for shape, same in shapes.items()]

    def orthogonal(self, matrices: torch.Tensor) -> torch.Tensor:
        """Bring the singular values of [N, R, C] near one by five Newton-Schulz iterations."""
        x = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
        x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(self.dtype).contiguous()
        for _ in range(5):
            gram = x @ x.mT
            x = torch.baddbmm(
                x, torch.baddbmm(gram, gram, gram, beta=-4.775, alpha=2.0315), x, beta=3.4445
            )
        return (x if matrices.shape[1] <= matrices.shape[2] else x.mT).float()

    @torch.no_grad()
    def step(self) -> None:
        lr = self.param_groups[0]["lr"]
        for parameters, average in self.alike:
            gradient = torch.stack([p.grad for p in parameters])
            average.lerp_(gradient, 1 - self.momentum)
            update = self.orthogonal(gradient.lerp(average, self.momentum))
            scale = max(1.0, update.shape[1] / update.shape[2]) ** 0.5
            torch._foreach_mul_(parameters, 1 - lr * self.weight_decay)
            torch._foreach_add_(parameters, list(update.unbind()), alpha=-lr * scale)

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameters, _ in self.alike:
            for parameter in parameters:
                parameter.grad = None


def make_optimizers(model: nn.Module, args: argparse.Namespace) -> list[Any]:
    """Muon for the blocks' matrices when asked for, AdamW for everything else."""
    hidden = [p for p in model.blocks.parameters() if args.muon and p.ndim == 2]
    ids = {id(p) for p in hidden}
    rest = [p for p in model.parameters() if id(p) not in ids]
    adam = torch.optim.AdamW(rest, lr=args.lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    return [adam, Muon(hidden, args.muon)] if hidden else [adam]


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    model = build_model()
    if args.init:
        model.load_state_dict(load_file(args.init))
    print(f"parameters {sum(p.numel() for p in model.parameters()):,}", flush=True)
    average = copy.deepcopy(model).requires_grad_(False)
    forward = torch.compile(model) if args.compile else model
    optimizers = make_optimizers(model, args)
    peaks = [o.param_groups[0]["lr"] for o in optimizers]
    data = Data(args)
    pairs = list(zip(average.parameters(), model.parameters(), strict=True))
    begin, running = time.time(), 0.0
    last = min(args.steps, args.stop or args.steps)
    for step in range(last):
        # Easy pictures first: shapes in the middle are learnt sooner than shapes anywhere.
        ramp = min(1.0, step / max(1, args.ramp))
        variety = args.variety[0] + (args.variety[1] - args.variety[0]) * ramp
        noisy, timestep, tokens, target = data.next(variety)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.autocast):
            output = forward(noisy, timestep, tokens)
        loss = F.mse_loss(output.float(), target)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = learning_rate(step, args.steps, args.warmup, peak)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        # The average forgets the early steps quickly and the late ones slowly.
        decay = min(args.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_([a for a, _ in pairs], [p for _, p in pairs], 1 - decay)
        running += loss.item()
        if (step + 1) % args.log_every == 0:
            print(
                f"step {step + 1} loss {running / args.log_every:.4f} norm {norm:.3f} "
                f"variety {variety:.2f} seconds {time.time() - begin:.0f}",
                flush=True,
            )
            running = 0.0
        if (step + 1) % args.save_every == 0 or step + 1 == last:
            save(average, args.output, step + 1)
            if args.checkpoints:
                save(average, args.checkpoints / f"step_{step + 1:05d}.safetensors", step + 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_host_argument(parser)
    parser.add_argument("--output", type=Path, default=MODEL_FILE)
    parser.add_argument("--checkpoints", type=Path, help="folder that keeps every checkpoint")
    parser.add_argument("--init", type=Path, help="go on from the weights of this checkpoint")
    parser.add_argument("--variety", type=float, nargs=2, default=[0.4, 0.6], help="first, last")
    parser.add_argument("--ramp", type=int, default=500, help="steps from the first to the last")
    parser.add_argument("--shift", type=float, default=6.0, help="of the shifted half of sigmas")
    parser.add_argument("--stop", type=int, help="end after this step of the --steps schedule")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--muon", type=float, default=0.02, help="Muon's rate for the blocks")
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--ema", type=float, default=0.998)
    parser.add_argument("--dropout", type=float, default=0.12)
    parser.add_argument("--seed", type=int, default=30)
    parser.add_argument("--autocast", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--save-every", type=int, default=300)
    args = parser.parse_args()
    import_host(args.comfyui)
    import comfy.model_management

    # Makes the host apply rotary embeddings by plain operations that autograd understands.
    comfy.model_management.in_training = True
    train(args)


if __name__ == "__main__":
    main()
