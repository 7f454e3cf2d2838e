"""With a policy that never skips, nothing changes: bit for bit, for every family."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models as tm
import torch
from whole import first, whole

# The families with which the engine was first proved; test_every_family.py has the others.
FAMILIES = ["flux", "flux2", "chroma", "wan"]
NEVER = {"residual_diff_threshold": 1e-12}

pytestmark = pytest.mark.every_host


def flux_control(batch: int) -> tm.TinyControl:
    tokens, width = 16, tm.FLUX_CONFIG["hidden_size"]
    generator = torch.Generator().manual_seed(7)
    adds = [torch.randn(batch, tokens, width, generator=generator) for _ in range(5)]
    return tm.TinyControl({"input": [*adds[:2]], "output": [*adds[2:]]})


def with_lora(model: Any) -> Any:
    """A clone with one weight patched, as a LoRA does."""
    clone = model.clone()
    name = next(k for k in model.model.state_dict() if k.endswith("blocks.1.img_attn.qkv.weight"))
    weight = model.model.state_dict()[name]
    generator = torch.Generator().manual_seed(3)
    difference = torch.randn(weight.shape, generator=generator) * 0.05
    clone.add_patches({name: ("diff", (difference,))}, 1.0)
    return clone


@pytest.mark.parametrize(("batch", "cfg"), [(1, 1.0), (3, 3.0), *whole([(1, 3.0), (3, 1.0)])])
@pytest.mark.parametrize("dtype", first([torch.float32, torch.bfloat16]))
@pytest.mark.parametrize("name", FAMILIES)
def test_never_skipping_is_bit_identical(
    name: str, dtype: torch.dtype, batch: int, cfg: float
) -> None:
    model = tm.make_model(name, dtype)
    plain = tm.sample(model, name, steps=6, cfg=cfg, batch=batch)
    accelerated = tm.attach(model, **NEVER)
    assert torch.equal(tm.sample(accelerated, name, steps=6, cfg=cfg, batch=batch), plain)
    report = tm.report_of(accelerated)
    assert report.skipped == 0 and report.computed == 6
    assert sum(e.diff is not None for e in report.evaluations) == 2, "the rule was really asked"
    assert plain.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["flux", "chroma"])
def test_identity_with_a_control_add(name: str, dtype: torch.dtype) -> None:
    model = tm.make_model(name, dtype)
    positive = tm.add_control(tm.conditioning(name, 1), flux_control(2))
    arguments: dict[str, Any] = {"steps": 6, "cfg": 3.0, "batch": 2, "positive": positive}
    plain = tm.sample(model, name, **arguments)
    assert torch.equal(tm.sample(tm.attach(model, **NEVER), name, **arguments), plain)
    without = tm.sample(model, name, **{**arguments, "positive": tm.conditioning(name, 1)})
    assert not torch.equal(plain, without), "the control really acts"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_identity_with_a_lora(dtype: torch.dtype) -> None:
    model = tm.make_model("flux", dtype)
    patched = with_lora(model)
    plain = tm.sample(patched, "flux", steps=6, cfg=3.0)
    assert torch.equal(tm.sample(tm.attach(patched, **NEVER), "flux", steps=6, cfg=3.0), plain)
    after = with_lora(tm.attach(model, **NEVER))
    assert torch.equal(tm.sample(after, "flux", steps=6, cfg=3.0), plain)
    assert not torch.equal(tm.sample(model, "flux", steps=6, cfg=3.0), plain), "the LoRA acts"


@pytest.mark.parametrize("name", FAMILIES)
def test_skipping_changes_the_picture_a_little(name: str) -> None:
    """The counterpart: a run that skips differs, is finite, and skips what it says."""
    model = tm.make_model(name)
    plain = tm.sample(model, name, steps=10)
    accelerated = tm.attach(model, scm_preset="medium", scm_policy="static")
    calls = count_block_calls(model)
    quick = tm.sample(accelerated, name, steps=10)
    report = tm.report_of(accelerated)
    assert report.skipped >= 3
    assert quick.isfinite().all() and not torch.equal(quick, plain)
    blocks = len(calls)
    assert sum(calls.values()) == report.computed * blocks + report.skipped * 1


def count_block_calls(model: Any) -> dict[str, int]:
    """Count how often each block's attention or first linear layer really runs."""
    network = model.model.diffusion_model
    counts: dict[str, int] = {}
    for name, block in network.named_modules():
        parent, _, last = name.rpartition(".")
        if last.isdigit() and parent in ("double_blocks", "single_blocks", "blocks"):
            inner = next(m for m in block.modules() if isinstance(m, torch.nn.Linear))
            counts[name] = 0

            def hook(*_: Any, name: str = name) -> None:
                counts[name] += 1

            inner.register_forward_hook(hook)
    return counts


@pytest.mark.parametrize(("first", "last"), [(1, 0), (2, 1), (3, 1), (1, 2), (1, 3)])
@pytest.mark.parametrize("name", ["flux", "wan"])
def test_skipped_evaluations_run_first_and_last_blocks_only(
    name: str, first: int, last: int
) -> None:
    model = tm.make_model(name)
    accelerated = tm.attach(
        model,
        Fn_compute_blocks=first,
        Bn_compute_blocks=last,
        scm_preset="fast",
        scm_policy="static",
    )
    calls = count_block_calls(model)
    tm.sample(accelerated, name, steps=10)
    report = tm.report_of(accelerated)
    assert report.skipped >= 4
    total = report.computed * len(calls) + report.skipped * (first + last)
    assert sum(calls.values()) == total
