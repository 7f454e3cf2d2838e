"""torch.compile around a model with an Attention Backend, in both orders of the nodes.

The compiler's backend is ``eager``, as in ``test_compile``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import tiny_models as tm
import torch
from compiling import compiled, compiler_anew
from torch._dynamo.eval_frame import _debug_get_cache_entry_list
from torch._dynamo.utils import counters
from whole import first

from dit_acceleration_pack.acceleration import host
from dit_acceleration_pack.acceleration.attention import AttentionSettings
from dit_acceleration_pack.acceleration.attention.planner import Planner
from dit_acceleration_pack.acceleration.attention.router import AttentionRun

pytestmark = pytest.mark.slow

STEPS = 4
WHOLE = ["diffusion_model"]
BLOCKS = ["diffusion_model.double_blocks.0", "diffusion_model.single_blocks.1"]


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    with compiler_anew():
        yield


@pytest.mark.parametrize(
    ("order", "keys"),
    first(itertools.product(("ours last", "ours first"), (BLOCKS, WHOLE))),
    ids=["last, blocks", "last, model", "first, blocks", "first, model"],
)
def test_compiled_models(order: str, keys: list[str]) -> None:
    settings = AttentionSettings(backend="sdpa")
    model = tm.make_model("flux")
    plain = tm.sample(model, "flux", steps=STEPS)
    if order == "ours first":
        both = compiled(host.attach_attention(model, settings), keys)
    else:
        both = host.attach_attention(compiled(model, keys), settings)
    first = tm.sample(both, "flux", steps=STEPS)
    frames = counters["frames"]["ok"]
    assert frames > 0
    assert float((first - plain).norm() / plain.norm()) < 1e-5
    report = host.lever_of(both, host.ATTENTION_KEY).last_report
    assert report.counts == {("sdpa", ""): 5 * STEPS}
    # A second run finds everything compiled.
    assert torch.equal(tm.sample(both, "flux", steps=STEPS), first)
    assert counters["frames"]["ok"] == frames
    for function in (AttentionRun.attend, Planner.plan):
        assert not _debug_get_cache_entry_list(function.__code__)
