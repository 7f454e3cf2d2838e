"""Every backend that is installed, on a CUDA device, against attention in float32."""

from __future__ import annotations

from typing import Any

import attention_calls as calls
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from dit_acceleration_pack.acceleration.attention import (
    BACKENDS,
    AttentionRun,
    AttentionSettings,
    available_backends,
)
from dit_acceleration_pack.acceleration.attention.probe import TOLERANCE

pytestmark = pytest.mark.gpu

INSTALLED = [a.name for a in available_backends() if a.available]


def relative_error(out: torch.Tensor, exact: torch.Tensor) -> float:
    return float((out.float() - exact).norm() / exact.norm())


def on_gpu(*tensors: Any) -> list[Any]:
    return [t.cuda() if isinstance(t, torch.Tensor) else t for t in tensors]


@pytest.mark.parametrize("backend", INSTALLED)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("head_size", [64, 80, 96, 128, 256, 512])
@pytest.mark.parametrize("heads_first", [True, False])
def test_against_float32(
    backend: str, dtype: torch.dtype, head_size: int, heads_first: bool
) -> None:
    """Whoever computes it, the result is right and the reason is there."""
    q, k, v = on_gpu(*calls.made(2, 4, 1100, 1152, head_size, dtype=dtype, heads_first=heads_first))
    run = AttentionRun(AttentionSettings(backend=backend))
    with torch.inference_mode():
        out = run.attend(calls.refuse, (q, k, v, 4), {"skip_reshape": heads_first})
        if not heads_first:
            q, k, v = (t.unflatten(2, (4, head_size)).transpose(1, 2) for t in (q, k, v))
        exact = torch.nn.functional.scaled_dot_product_attention(q.float(), k.float(), v.float())
    ((ran, reason),) = run.close(True).counts
    limit = BACKENDS[ran].tolerance or TOLERANCE[dtype]
    assert relative_error(out, exact.transpose(1, 2).flatten(2)) < limit
    assert (ran == backend) == (reason == "")


@pytest.mark.parametrize("backend", INSTALLED)
@pytest.mark.parametrize("kind", calls.masks(2, 4, 33, 47))
def test_masks(backend: str, kind: str) -> None:
    q, k, v, mask = on_gpu(*calls.made(dtype=torch.float16), calls.masks(2, 4, 33, 47)[kind])
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.half()
    run = AttentionRun(AttentionSettings(backend=backend))
    with torch.inference_mode():
        out = run.attend(calls.refuse, (q, k, v, 4, mask), {"skip_reshape": True})
    given = [t.cpu() if isinstance(t, torch.Tensor) else t for t in (q, k, v, 4, mask)]
    exact = calls.reference(tuple(given), {"skip_reshape": True})
    ((ran, _),) = run.close(True).counts
    assert calls.error(out.cpu(), exact) < (BACKENDS[ran].tolerance or TOLERANCE[torch.float16])


def test_auto_races_on_the_device() -> None:
    """All kernels take part; the host's own function, here one that gives zeros, is found out."""
    q, k, v = on_gpu(*calls.made(1, 8, 2048, 2048, 128, dtype=torch.bfloat16))
    memory: dict[str, dict[str, Any]] = {}
    run = AttentionRun(AttentionSettings(backend="auto"), None, memory)
    with torch.inference_mode():
        zeros = torch.zeros(1, 2048, 8 * 128, device="cuda", dtype=torch.bfloat16)
        run.attend(lambda *_, **__: zeros, (q, k, v, 8), {"skip_reshape": True})
    ((key, kept),) = memory.items()
    assert torch.cuda.get_device_name() in key
    assert kept["backend"] != "default" and len(kept["milliseconds"]) > 1
    assert any("default left the race: differs by" in n for n in run.close(True).notices)


PINNED = {
    "sdpa_flash": SDPBackend.FLASH_ATTENTION,
    "sdpa_cudnn": SDPBackend.CUDNN_ATTENTION,
    "sdpa_efficient": SDPBackend.EFFICIENT_ATTENTION,
    "sdpa_math": SDPBackend.MATH,
}


@pytest.mark.parametrize("backend", PINNED)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("head_size", [40, 63, 64, 128, 256])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_kernels_called_directly_give_what_sdpa_pinned_does(
    backend: str, dtype: torch.dtype, head_size: int, kv_heads: int
) -> None:
    """And refuse what it refuses, but for masks of another dtype and groups, which they prepare."""
    kernel = BACKENDS[backend].load()
    q, k, v = on_gpu(
        *calls.made(2, 4, 130, 130, head_size, kv_heads=kv_heads, dtype=dtype, heads_first=False)
    )
    q = q.unflatten(2, (4, head_size)).transpose(1, 2)
    k, v = (t.unflatten(2, (kv_heads, head_size)).transpose(1, 2) for t in (k, v))
    if backend == "sdpa_efficient" and kv_heads != 4:
        k, v = (t.repeat_interleave(2, dim=1) for t in (k, v))
    grouped = k.shape[1] != 4
    for mask in calls.masks(2, 4, 130, 130).values():
        (mask,) = on_gpu(mask)
        while mask is not None and mask.ndim < 4:
            mask = mask.unsqueeze(0 if mask.ndim == 2 else 1)
        if mask is not None and mask.dtype != torch.bool:
            mask = mask.to(dtype)
        for scale, causal in ((None, False), (0.2, False), (None, mask is None)):
            with torch.inference_mode():
                try:
                    with sdpa_kernel(PINNED[backend]):
                        exact = torch.nn.functional.scaled_dot_product_attention(
                            q, k, v, mask, is_causal=causal, scale=scale, enable_gqa=grouped
                        )
                except RuntimeError:
                    with pytest.raises(RuntimeError):
                        kernel(q, k, v, mask, scale, causal)
                    continue
                out = kernel(q, k, v, mask, scale, causal)
            assert relative_error(out, exact.float()) < 1e-3 * TOLERANCE[dtype]
