"""torch.compile with Progressive Resolution: the network is compiled once for each size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import tiny_models as tm
import torch
from progressive_runs import attach, report_of, run
from torch._dynamo.utils import counters

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    """Every test compiles anew, and fails where the compiler would give up silently."""
    torch._dynamo.reset()
    counters.clear()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        yield
    torch._dynamo.reset()


def compiled(model: Any) -> Any:
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    clone = model.clone()
    set_torch_compile_wrapper(clone, backend="eager", keys=["diffusion_model"])
    return clone


def graphs() -> int:
    return int(counters["stats"]["unique_graphs"])


@pytest.mark.parametrize("order", ["before", "behind"])
def test_once_for_each_size(order: str) -> None:
    model = tm.make_model("flux")
    plain = run(attach(model), steps=8)
    run(compiled(model), steps=8)
    one_size = graphs()
    assert one_size > 0
    torch._dynamo.reset()
    counters.clear()
    quick = compiled(attach(model)) if order == "before" else attach(compiled(model))
    output = run(quick, steps=8)
    assert report_of(quick).coarse and not report_of(quick).refused
    assert tm.psnr(plain, output) > 90.0
    assert graphs() <= 2 * one_size
    both = graphs()
    assert torch.equal(run(quick, steps=8), output)
    assert graphs() == both
