"""Speed and error of every attention backend that works on this GPU, on the shapes of real models.

For each backend and shape: TFLOP/s (4 · B · H · Lq · Lk · D a call, softmax not counted), the ratio
of its speed to PyTorch's free choice, and the relative error (L2) against attention in float32 on a
slice of the queries. Only a CUDA device is worth measuring: ``--gpu``.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness


@dataclass(frozen=True)
class Shape:
    """One self attention of a model."""

    name: str
    heads: int
    tokens: int
    head_size: int = 128
    batch: int = 1

    @property
    def flop(self) -> float:
        """Floating-point operations of the two matrix products."""
        return 4.0 * self.batch * self.heads * self.tokens**2 * self.head_size


SHAPES = (
    # 64 x 64 patches and 512 tokens of T5.
    Shape("Flux 1024²", 24, 64 * 64 + 512),
    # 832 x 480, 81 frames: 21 latent frames of 52 x 30 patches; 14B.
    Shape("Wan 480p × 81", 40, 21 * 52 * 30),
    # 83 x 83 patches and 256 tokens of text.
    Shape("Qwen-Image 1328²", 24, 83 * 83 + 256),
    # 1280 x 720, 129 frames: 33 latent frames of 80 x 45 patches, and 256 tokens of text.
    Shape("HunyuanVideo 720p × 129", 24, 33 * 80 * 45 + 256),
)
ERROR_QUERIES = 256
WARM_UP = 2


def call_of(backend: str, shape: Shape, dtype: Any) -> tuple[Any, Any, tuple[Any, ...]]:
    """The run, a function of one call, and its tensors."""
    import torch

    from dit_acceleration_pack.acceleration.attention import AttentionRun, AttentionSettings

    generator = torch.Generator(device="cuda").manual_seed(0)
    size = (shape.batch, shape.heads, shape.tokens, shape.head_size)
    q, k, v = (
        torch.randn(size, generator=generator, device="cuda", dtype=torch.float32).to(dtype)
        for _ in range(3)
    )
    run = AttentionRun(AttentionSettings(backend=backend))

    def host(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no backend takes this call")

    def call() -> Any:
        arguments = {"skip_reshape": True, "skip_output_reshape": True}
        return run.attend(host, (q, k, v, shape.heads), arguments)

    return run, call, (q, k, v)


def error_of(out: Any, q: Any, k: Any, v: Any) -> float:
    """Relative error (L2) of the first queries' output, head by head to save memory."""
    difference = size = 0.0
    for head in range(q.shape[1]):
        few = q[:, head, :ERROR_QUERIES].float()
        scores = few @ k[:, head].float().transpose(1, 2) * q.shape[3] ** -0.5
        exact = scores.softmax(dim=-1) @ v[:, head].float()
        difference += float((out[:, head, :ERROR_QUERIES].float() - exact).square().sum())
        size += float(exact.square().sum())
    return (difference / size) ** 0.5


def milliseconds(call: Any, repeats: int) -> float:
    """Median time of a call, by events on the device."""
    import torch

    for _ in range(WARM_UP):
        call()
    times = []
    for _ in range(repeats):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        call()
        last.record()
        last.synchronize()
        times.append(first.elapsed_time(last))
    return statistics.median(times)


def row_of(backend: str, shape: Shape, dtype: Any, repeats: int) -> dict[str, Any]:
    """One backend on one shape; ``ran`` says who computed it."""
    import torch

    row: dict[str, Any] = {"shape": shape.name, "tokens": shape.tokens, "backend": backend}
    try:
        with torch.inference_mode():
            run, call, (q, k, v) = call_of(backend, shape, dtype)
            out = call()
            ((ran, reason),) = run.close(True).counts
            if ran != backend:
                return {**row, "ran": ran, "reason": reason}
            row |= {"ran": ran, "error": error_of(out, q, k, v)}
            del out
            run, call, _ = call_of(backend, shape, dtype)
            row["ms"] = milliseconds(call, repeats)
            row["tflops"] = shape.flop / row["ms"] / 1e9
    except (RuntimeError, torch.OutOfMemoryError) as problem:
        return {**row, "ran": "", "reason": str(problem).splitlines()[0][:200]}
    finally:
        torch.cuda.empty_cache()
    return row


def measure(dtype: Any, repeats: int) -> list[dict[str, Any]]:
    """Every backend but plain mathematics, whose memory these shapes exceed."""
    from dit_acceleration_pack.acceleration.attention import BACKENDS, available_backends

    names = [a.name for a in available_backends() if a.available and BACKENDS[a.name].races]
    rows = []
    for shape in SHAPES:
        found = [row_of(name, shape, dtype, repeats) for name in names]
        base = next((r["ms"] for r in found if r["backend"] == "sdpa" and "ms" in r), None)
        for row in found:
            if base is not None and "ms" in row:
                row["ratio_to_sdpa"] = base / row["ms"]
            row["quality_class"] = BACKENDS[row["backend"]].quality_class
            rows.append(harness.rounded(row, 6))
            harness.show(rows[-1])
    return rows


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeats", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--dtype", choices=["bfloat16", "float16"], default="bfloat16")
    parser.add_argument("--output", type=Path, default=harness.RESULTS / "attention.json")


def main(options: argparse.Namespace, environment: Any) -> int:
    import torch

    if not (options.gpu and torch.cuda.is_available()):
        print("This measures a CUDA device: run it with --gpu on a machine that has one.")
        return 2
    torch.cuda.init()
    rows = measure(getattr(torch, options.dtype), options.repeats)
    data = {
        "environment": harness.describe(environment),
        "capability": list(torch.cuda.get_device_capability()),
        "dtype": options.dtype,
        "repeats": options.repeats,
        "rows": rows,
    }
    harness.write(options.output, data)
    return 0


if __name__ == "__main__":
    harness.run(__file__, add_options, main)
