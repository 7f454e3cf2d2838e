"""torch.compile with Progressive Resolution: the network is compiled once for each size."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import tiny_models as tm
import torch
from compiling import compiled, compiler_anew
from progressive_runs import attach, report_of, run
from torch._dynamo.utils import counters

pytestmark = pytest.mark.slow


WHOLE = ["diffusion_model"]


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    with compiler_anew():
        yield


def graphs() -> int:
    return int(counters["stats"]["unique_graphs"])


@pytest.mark.whole
@pytest.mark.parametrize("order", ["before", "behind"])
def test_once_for_each_size(order: str) -> None:
    model = tm.make_model("flux")
    plain = run(attach(model), steps=8)
    run(compiled(model, WHOLE), steps=8)
    one_size = graphs()
    assert one_size > 0
    torch._dynamo.reset()
    counters.clear()
    quick = compiled(attach(model), WHOLE) if order == "before" else attach(compiled(model, WHOLE))
    output = run(quick, steps=8)
    assert report_of(quick).coarse and not report_of(quick).refused
    assert tm.psnr(plain, output) > 90.0
    assert graphs() <= 2 * one_size
    both = graphs()
    assert torch.equal(run(quick, steps=8), output)
    assert graphs() == both
