"""torch.compile by the host's own wrapper, around the whole model and around single blocks.

The backend runs what was traced as it is: the compiler's tracing, guards and module swapping are
real, only the generated code is missing, so results stay comparable within rounding on any machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType, ModuleType
from typing import Any

import pytest
import tiny_models
import torch
from compiling import compiled, compiler_anew
from torch._dynamo.eval_frame import OptimizedModule, _debug_get_cache_entry_list
from torch._dynamo.utils import counters
from whole import first

from dit_acceleration_pack.acceleration import host
from dit_acceleration_pack.acceleration.families import base
from dit_acceleration_pack.acceleration.policies.cache_dit import CacheDiT
from dit_acceleration_pack.acceleration.report import RunReport
from dit_acceleration_pack.acceleration.sampling import evaluation, gates
from dit_acceleration_pack.acceleration.settings.caching import CacheDiTSettings

pytestmark = pytest.mark.slow

STEPS = 10
WHOLE = ["diffusion_model"]
# The first block decides, the last one restores; the others hand through.
ALL_BLOCKS = [f"diffusion_model.double_blocks.{i}" for i in range(2)]
ALL_BLOCKS += [f"diffusion_model.single_blocks.{i}" for i in range(3)]
SOME_BLOCKS = ["diffusion_model.double_blocks.1", "diffusion_model.single_blocks.2"]
# Dynamic decisions read a number back from the tensors, a static mask does not.
SETTINGS = {
    "dynamic": CacheDiTSettings(residual_diff_threshold=0.5, max_warmup_steps=2),
    "static": CacheDiTSettings(scm_preset="fast", scm_policy="static", calibrator="taylorseer"),
    "last block computed": CacheDiTSettings(
        Bn_compute_blocks=1, residual_diff_threshold=0.5, max_warmup_steps=2
    ),
}

Order = Callable[[Any, list[str], CacheDiTSettings], Any]


class CountingBackend:
    """A backend that counts how often what was compiled with it runs."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            self.calls += 1
            return graph.forward(*args)

        return run


BACKEND = CountingBackend()


def ours_before(model: Any, keys: list[str], settings: CacheDiTSettings) -> Any:
    return compiled(host.attach(model, CacheDiT(settings)), keys, BACKEND)


def ours_after(model: Any, keys: list[str], settings: CacheDiTSettings) -> Any:
    return host.attach(compiled(model, keys, BACKEND), CacheDiT(settings))


ORDERS: list[Order] = [ours_before, ours_after]


@pytest.fixture(scope="module", autouse=True)
def fresh_compiler() -> Iterator[None]:
    """What one test compiled the next may find and run."""
    with compiler_anew(recompile_limit=64):
        yield


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_models.make_model("flux")


def sample(model: Any, **options: Any) -> torch.Tensor:
    return tiny_models.sample(model, "flux", steps=STEPS, **options)


def report_of(model: Any) -> RunReport:
    report = host.last_report(model)
    assert report is not None
    return report


def decisions(report: RunReport) -> list[tuple[int, bool, str]]:
    return [(e.step, e.skipped, e.reason) for e in report.evaluations]


def attributes(model: Any) -> dict[str, tuple[type, tuple[str, ...]]]:
    """Class and instance attributes of every module."""
    modules = model.model.diffusion_model.named_modules()
    return {name: (type(module), tuple(module.__dict__)) for name, module in modules}


def relative_error(reference: torch.Tensor, other: torch.Tensor) -> float:
    return float((reference - other).norm() / reference.norm())


def functions_of(module: ModuleType) -> Iterator[FunctionType]:
    """Functions and methods of a module."""
    for value in vars(module).values():
        members = vars(value).values() if isinstance(value, type) else (value,)
        for member in members:
            if isinstance(member, FunctionType) and member.__module__ == module.__name__:
                yield member


@contextmanager
def nothing_compiles() -> Iterator[None]:
    """Fail when the compiler makes anything new."""
    before = counters["stats"]["unique_graphs"]
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield
    assert counters["stats"]["unique_graphs"] == before


@pytest.mark.parametrize(
    "keys", first([WHOLE, ALL_BLOCKS, SOME_BLOCKS]), ids=["whole", "all", "some"]
)
@pytest.mark.parametrize("order", first(ORDERS), ids=["ours-before", "ours-after"])
def test_same_as_uncompiled_and_clean(model: Any, order: Order, keys: list[str]) -> None:
    """Same skips, same picture, nothing compiled anew in a second run, nothing left behind."""
    plain, before = sample(model), attributes(model)
    accelerated = host.attach(model, CacheDiT(SETTINGS["dynamic"]))
    expected = sample(accelerated)
    wanted = decisions(report_of(accelerated))
    assert any(skipped for _, skipped, _ in wanted)

    candidate = order(model, keys, SETTINGS["dynamic"])
    ran = BACKEND.calls
    first = sample(candidate)
    assert BACKEND.calls >= ran + STEPS
    assert decisions(report_of(candidate)) == wanted
    assert relative_error(expected, first) < 1e-5

    with nothing_compiles():
        second = sample(candidate)
    assert torch.equal(first, second)
    assert decisions(report_of(candidate)) == wanted

    assert attributes(model) == before
    assert not any(isinstance(m, OptimizedModule) for m in model.model.modules())
    assert torch.equal(sample(model), plain)
    for engine in (evaluation, gates, base):
        for function in functions_of(engine):
            assert not _debug_get_cache_entry_list(function.__code__), function.__qualname__


@pytest.mark.parametrize("name", ["static", "last block computed"])
def test_other_settings(model: Any, name: str) -> None:
    accelerated = host.attach(model, CacheDiT(SETTINGS[name]))
    expected = sample(accelerated)
    wanted = decisions(report_of(accelerated))
    assert any(skipped for _, skipped, _ in wanted)
    candidate = ours_after(model, ALL_BLOCKS, SETTINGS[name])
    result = sample(candidate)
    assert decisions(report_of(candidate)) == wanted
    assert relative_error(expected, result) < 1e-5


@pytest.mark.whole
@pytest.mark.parametrize("name", ["wan", "flux2", "chroma"])
def test_other_families(name: str) -> None:
    model = tiny_models.make_model(name)
    settings = SETTINGS["dynamic"]
    accelerated = host.attach(model, CacheDiT(settings))
    expected = tiny_models.sample(accelerated, name, steps=STEPS)
    candidate = ours_before(model, WHOLE, settings)
    result = tiny_models.sample(candidate, name, steps=STEPS)
    assert report_of(candidate).skipped > 0
    assert decisions(report_of(candidate)) == decisions(report_of(accelerated))
    assert relative_error(expected, result) < 1e-5


@pytest.mark.parametrize("order", ORDERS, ids=["ours-before", "ours-after"])
def test_compiled_model_is_unharmed(model: Any, order: Order) -> None:
    """The compiled model without our node gives its own picture before, between and after."""
    without = compiled(model, ALL_BLOCKS, BACKEND)
    expected = sample(without)
    candidate = order(model, ALL_BLOCKS, SETTINGS["dynamic"])
    sample(candidate)
    assert torch.equal(sample(without), expected)
    with nothing_compiles():
        sample(candidate)
        assert torch.equal(sample(without), expected)
    assert relative_error(sample(model), expected) < 1e-5


@pytest.mark.parametrize("keys", [WHOLE, ALL_BLOCKS], ids=["whole", "blocks"])
@pytest.mark.parametrize("order", ORDERS, ids=["ours-before", "ours-after"])
def test_error_inside_leaves_a_clean_model(model: Any, order: Order, keys: list[str]) -> None:
    plain, before = sample(model), attributes(model)
    block = model.model.diffusion_model.double_blocks[1]

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("stop here")

    candidate = order(model, keys, SETTINGS["dynamic"])
    block.img_mlp.forward = fail
    try:
        with pytest.raises(RuntimeError, match="stop here"):
            sample(candidate)
    finally:
        del block.img_mlp.forward
    assert attributes(model) == before
    assert torch.equal(sample(model), plain)


@pytest.mark.parametrize("order", first(ORDERS), ids=["ours-before", "ours-after"])
def test_cond_and_uncond(model: Any, order: Order) -> None:
    """Guidance, joined in one call and split in two, follows the uncompiled decisions."""
    accelerated = host.attach(model, CacheDiT(SETTINGS["dynamic"]))
    candidate = order(model, ALL_BLOCKS, SETTINGS["dynamic"])
    for split in (False, True):
        with tiny_models.split_batches(model, when=lambda _, split=split: split):
            expected = sample(accelerated, cfg=3.0)
            result = sample(candidate, cfg=3.0)
        assert decisions(report_of(candidate)) == decisions(report_of(accelerated))
        assert relative_error(expected, result) < 1e-5
