"""Train the demo model: ComfyUI's own Flux class, 4.5 M parameters, on pictures drawn by formula.

Run ``python workflows/demo/train.py --comfyui PATH`` (a ComfyUI checkout). The seed, the number
of steps and the batch size fix the run; an interrupted or slowed-down run is not shortened.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import time
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from host import add_host_argument, import_host
from safetensors.torch import load_file, save_file
from shapes import PROMPTS, UNCONDITIONAL, draw, picture_to_model, text_embedding
from torch import nn

HERE = Path(__file__).resolve().parent
MODEL_FILE = HERE / "models" / "dit_accel_demo_flux.safetensors"

# What the host's model detection reads from the weight shapes, plus what it takes as given.
CONFIG = {
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "hidden_size": 128,
    "num_heads": 1,
    "axes_dim": [16, 56, 56],
    "theta": 10000,
    "depth": 4,
    "depth_single_blocks": 8,
    "mlp_ratio": 4.0,
    "context_in_dim": 64,
    "vec_in_dim": 64,
    "qkv_bias": True,
    "guidance_embed": False,
    "txt_ids_dims": [],
}


class _LayerNorm(nn.LayerNorm):
    """Normalises a copy, so that the block may add to its input in place afterwards.

    The host's blocks write ``img += ...``. Autograd allows that as long as no backward formula
    has kept ``img`` itself, and the layer norms are the only ones that would.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.clone())


OPERATIONS = SimpleNamespace(Linear=nn.Linear, LayerNorm=_LayerNorm, RMSNorm=nn.RMSNorm)


def build_model() -> nn.Module:
    """Build the host's Flux class with the usual zero-initialised modulation of a DiT."""
    from comfy.ldm.flux.model import Flux

    model = Flux(image_model="flux", dtype=torch.float32, operations=OPERATIONS, **CONFIG)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    for name, module in model.named_modules():
        # A gate, scale or shift of zero makes each block start as the identity.
        if name.endswith(("_mod.lin", "modulation.lin")):
            nn.init.zeros_(module.weight)
    nn.init.zeros_(model.final_layer.adaLN_modulation[1].weight)
    nn.init.zeros_(model.final_layer.linear.weight)
    for embedder in (model.time_in, model.vector_in):
        nn.init.normal_(embedder.in_layer.weight, std=0.02)
        nn.init.normal_(embedder.out_layer.weight, std=0.02)
    return model


class Data:
    """Endless batches of (noisy latent, sigma, tokens, pooled, target)."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.batch, self.dropout = args.batch, args.dropout
        self.variety, self.backdrop = args.variety, args.backdrop
        self.sigma_mean = args.sigma_mean
        self.generator = torch.Generator().manual_seed(args.seed)
        texts = [text_embedding(prompt) for prompt in (*PROMPTS, UNCONDITIONAL)]
        self.tokens = torch.cat([tokens for tokens, _ in texts])
        self.pooled = torch.cat([pooled for _, pooled in texts])

    def next(self) -> tuple[torch.Tensor, ...]:
        g = self.generator
        # Every prompt equally often in every batch: less noisy gradients than random labels.
        labels = torch.arange(self.batch) % len(PROMPTS)
        clean = picture_to_model(draw(labels, g, self.variety, self.backdrop))
        noise = torch.randn(clean.shape, generator=g)
        # Stratified, then pushed to the middle by a logistic normal for half of the batch.
        u = torch.randperm(self.batch, generator=g) + torch.rand(self.batch, generator=g)
        u = u / self.batch
        normal = torch.special.ndtri(u.clamp(1e-4, 1 - 1e-4))
        sigma = torch.where(
            torch.arange(self.batch) % 16 < 8, torch.sigmoid(normal + self.sigma_mean), u
        )
        s = sigma[:, None, None, None]
        drop = torch.rand(self.batch, generator=g) < self.dropout
        labels = torch.where(drop, len(PROMPTS), labels)
        noisy, target = (1 - s) * clean + s * noise, noise - clean
        return noisy, sigma, self.tokens[labels], self.pooled[labels], target


def learning_rate(step: int, steps: int, warmup: int, peak: float) -> float:
    """Linear warm-up, then a cosine down to a hundredth of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def save(model: nn.Module, path: Path, step: int) -> None:
    """Write the weights as float16: half the size, and a CPU host loads them as float32."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().to(torch.float16).contiguous() for k, v in model.state_dict().items()}
    part = path.with_suffix(".part")
    save_file(state, part, metadata={"step": str(step)})
    part.chmod(0o644)
    os.replace(part, path)


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    model = build_model()
    if args.init:
        model.load_state_dict(load_file(args.init))
    print(f"parameters {sum(p.numel() for p in model.parameters()):,}", flush=True)
    average = copy.deepcopy(model).requires_grad_(False)
    forward = torch.compile(model) if args.compile else model
    opt = torch.optim.AdamW(
        model.parameters(), lr=args.lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    data = Data(args)
    pairs = list(zip(average.parameters(), model.parameters(), strict=True))
    begin, running = time.time(), 0.0
    last = min(args.steps, args.stop or args.steps)
    for step in range(last):
        noisy, sigma, tokens, pooled, target = data.next()
        with torch.autocast("cpu", torch.bfloat16, enabled=args.autocast):
            output = forward(noisy, sigma, tokens, pooled)
        loss = F.mse_loss(output.float(), target)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        rate = learning_rate(step, args.steps, args.warmup, args.lr)
        opt.param_groups[0]["lr"] = rate
        opt.step()
        opt.zero_grad(set_to_none=True)
        # The average forgets the early steps quickly and the late ones slowly.
        decay = min(args.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_([a for a, _ in pairs], [p for _, p in pairs], 1 - decay)
        running += loss.item()
        if (step + 1) % args.log_every == 0:
            took = time.time() - begin
            print(
                f"step {step + 1} loss {running / args.log_every:.4f} norm {norm:.3f} "
                f"lr {rate:.2e} seconds {took:.0f}",
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
    parser.add_argument("--variety", type=float, default=1.0, help="see shapes.draw")
    parser.add_argument("--backdrop", type=float, default=1.0, help="see shapes.draw")
    parser.add_argument("--sigma-mean", type=float, default=0.0, help="of the logistic normal")
    parser.add_argument("--stop", type=int, help="end after this step of the --steps schedule")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--warmup", type=int, default=200)
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--dropout", type=float, default=0.12)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--autocast", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--save-every", type=int, default=500)
    args = parser.parse_args()
    import_host(args.comfyui)
    import comfy.model_management

    # Makes the host apply rotary embeddings by plain operations that autograd understands.
    comfy.model_management.in_training = True
    train(args)


if __name__ == "__main__":
    main()
