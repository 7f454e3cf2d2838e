"""What the engine promises holds for every diffusion transformer of the host.

Each family is a tiny model of the host's real class (``tiny_families``), sampled by the host's real
sampler. A family that the host adds shows up here as a named gap.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import tiny_models as tm
import torch
from conftest import host_version
from tiny_families import NOT_COVERED, NOT_TRANSFORMERS
from whole import whole

from comfyui_environment import NEWEST, is_newer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:comfy.*")

NEVER = {"residual_diff_threshold": 1e-12}

SEVEN_STEPS = {"scm_compute_bins": "2,1,1", "scm_cache_bins": "1,2", "scm_policy": "static"}
"""Of seven evaluations the third, fifth and sixth are skipped."""

REFUSED = ("wan_causal",)

ON_EVERY_HOST = ("flux_kontext", "wan_i2v", "qwen_image", "hunyuan_video", "sd3")

WRITES_ON_NEWER_HOSTS = ("hidream_o1",)

BF16 = ("flux_kontext", "wan_vace", "qwen_image_edit", "z_image", "hunyuan_video15", "ltxav", "sd3")


@dataclass(frozen=True)
class Built:
    """One family, built once for all its tests."""

    name: str
    model: Any
    structure: Any

    @property
    def has_last_blocks(self) -> bool:
        return not self.structure.family.last_blocks_need_all

    @property
    def cfg(self) -> float:
        return 1.0 if tm.TINY[self.name].one_at_a_time else 2.0

    def sample(self, model: Any = None, steps: int = 7, **options: Any) -> torch.Tensor:
        return tm.sample(model or self.model, self.name, steps=steps, **options)


EVERYWHERE = [pytest.param(name, marks=pytest.mark.every_host) for name in ON_EVERY_HOST]
OTHERS = [name for name in tm.TINY if name not in (*REFUSED, *ON_EVERY_HOST)]
few = pytest.mark.parametrize("built", [*EVERYWHERE, *whole(OTHERS)], indirect=True)
"""Some families stand for all of them in the quick check."""


@pytest.fixture(scope="module", params=[*EVERYWHERE, *OTHERS])
def built(request: pytest.FixtureRequest) -> Built:
    return build(request.param)


def build(name: str, dtype: torch.dtype = torch.float32) -> Built:
    import comfy.supported_models

    from dit_acceleration_pack.acceleration import host

    if not hasattr(comfy.supported_models, tm.TINY[name].config):
        pytest.skip(f"ComfyUI {host_version()} has no {tm.TINY[name].config}")
    model = tm.make_model(name, dtype)
    structure = host.structure_of(model)
    assert structure is not None, f"{type(model.model.diffusion_model)} is in no family"
    return Built(name, model, structure)


@contextmanager
def counted_blocks(built: Built) -> Iterator[list[int]]:
    """How often each block really runs, in running order."""
    blocks = [block for _, block in built.structure.blocks(built.model.model.diffusion_model)]
    counts = [0] * len(blocks)

    def counting(index: int, original: Any) -> Any:
        def forward(*args: Any, **kwargs: Any) -> Any:
            counts[index] += 1
            return original(*args, **kwargs)

        return forward

    for index, block in enumerate(blocks):
        block.__dict__["forward"] = counting(index, block.forward)
    try:
        yield counts
    finally:
        for block in blocks:
            del block.__dict__["forward"]


def attributes(model: Any) -> list[set[str]]:
    return [set(vars(module)) for module in model.model.diffusion_model.modules()]


def check_identity(built: Built) -> None:
    plain = built.sample(steps=6, cfg=built.cfg)
    accelerated = tm.attach(built.model, **NEVER)
    assert torch.equal(built.sample(accelerated, steps=6, cfg=built.cfg), plain)
    report = tm.report_of(accelerated)
    assert report.skipped == 0 and report.computed == len(report.evaluations) >= 6
    assert sum(e.diff is not None for e in report.evaluations) >= 2, "the rule was really asked"
    assert plain.isfinite().all() and plain.abs().max() > 0
    assert not report.notices


def test_never_skipping_is_bit_identical(built: Built) -> None:
    check_identity(built)


@pytest.mark.parametrize("name", BF16)
def test_never_skipping_is_bit_identical_in_bfloat16(name: str) -> None:
    check_identity(build(name, torch.bfloat16))


@few
@pytest.mark.parametrize(("first", "last"), [(2, 1), *whole([(1, 0), (1, 1)])])
def test_skipping_runs_first_and_last_blocks_only(built: Built, first: int, last: int) -> None:
    from dit_acceleration_pack.acceleration.errors import AccelerationError

    settings = {**SEVEN_STEPS, "Fn_compute_blocks": first, "Bn_compute_blocks": last}
    if last and not built.has_last_blocks:
        with pytest.raises(AccelerationError, match="Bn"):
            tm.attach(built.model, **settings)
        return
    plain = built.sample()
    accelerated = tm.attach(built.model, **settings)
    with counted_blocks(built) as counts:
        quick = built.sample(accelerated)
    report = tm.report_of(accelerated)
    assert [e.skipped for e in report.evaluations] == [
        reason == "-" for reason in ("+", "+", "-", "+", "-", "-", "+")
    ]
    middle = len(counts) - first - last
    assert middle >= 1
    assert counts == [7] * first + [4] * middle + [7] * last
    assert quick.isfinite().all() and not torch.equal(quick, plain)


@few
def test_run_two_is_run_one_and_nothing_stays(built: Built) -> None:
    plain = built.sample(cfg=built.cfg)
    before = attributes(built.model)
    accelerated = tm.attach(built.model, **SEVEN_STEPS)
    one = built.sample(accelerated, cfg=built.cfg)
    skipped = [e.skipped for e in tm.report_of(accelerated).evaluations]
    assert attributes(built.model) == before
    two = built.sample(accelerated, cfg=built.cfg)
    assert torch.equal(one, two)
    assert [e.skipped for e in tm.report_of(accelerated).evaluations] == skipped
    assert torch.equal(built.sample(cfg=built.cfg), plain)


def test_residuals_are_not_zero(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot by reference is equal to the result where blocks write into their input."""
    from dit_acceleration_pack.acceleration.sampling import gate_steps

    seen: list[float] = []
    capture = gate_steps.capture

    def spy(self: Any, stack: Any, output: Any) -> None:
        capture(self, stack, output)
        seen.extend(float(tensor.abs().mean()) for tensor in self.now.residual.values())
        seen.append(float(self.now.signal.abs().mean()))

    monkeypatch.setattr(gate_steps, "capture", spy)
    settings = {"Bn_compute_blocks": 1} if built.has_last_blocks else {}
    built.sample(tm.attach(built.model, **settings), steps=2)
    assert len(seen) >= 4 and min(seen) > 1e-3


def test_what_is_said_about_blocks_that_write_in_place_is_true(built: Built) -> None:
    changed: dict[str, bool] = {}
    with watched_blocks(built, changed):
        built.sample(steps=1)
    said = {stack.path for stack in built.structure.family.stacks if stack.in_place}
    seen = {path for path, written in changed.items() if written}
    assert seen <= said, "these blocks write into their input"
    # A family says what holds for any host; the pinned ones write whatever is not excepted here.
    if built.name not in WRITES_ON_NEWER_HOSTS and not is_newer(host_version()):
        assert said <= seen, "these blocks do not"


@contextmanager
def watched_blocks(built: Built, changed: dict[str, bool]) -> Iterator[None]:
    """Notes for each stack whether its blocks write into a stream that they are given."""

    def before(stack: Any, block: Any, args: Any, kwargs: Any) -> None:
        given = [stack.read_input(name, args, kwargs) for name in stack.inputs]
        copies[block] = [(tensor, tensor.clone()) for tensor in given if tensor is not None]

    def after(stack: Any, block: Any, *_: Any) -> None:
        written = [not torch.equal(tensor, copy) for tensor, copy in copies.pop(block)]
        changed[stack.path] = changed.get(stack.path, False) or any(written)

    copies: dict[Any, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    handles = []
    for stack, block in built.structure.blocks(built.model.model.diffusion_model):
        handles.append(block.register_forward_pre_hook(partial(before, stack), with_kwargs=True))
        handles.append(block.register_forward_hook(partial(after, stack)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def test_residuals_of_both_kinds_of_blocks_are_watched() -> None:
    """The test of residuals above means something only if both kinds are among the models."""
    from dit_acceleration_pack.acceleration.families import describe

    networks = [tm.bare_model(name).diffusion_model for name in ON_EVERY_HOST]
    found = {s.family.in_place for s in map(describe, networks) if s is not None}
    assert found == {True, False}


def thrice_the_same(built: Built, model: Any, positive: list[Any]) -> torch.Tensor:
    """Four steps whose second and third see exactly the input of the first (equal sigmas)."""
    import comfy.sample
    import comfy.samplers

    tm.forget_earlier_runs(model, built.name)
    sampling = model.get_model_object("model_sampling")
    high, low = (float(sampling.percent_to_sigma(percent)) for percent in (0.2, 0.6))
    empty = tm.empty_latent(built.name)
    with torch.inference_mode():
        samples = comfy.sample.sample_custom(
            model,
            comfy.sample.prepare_noise(empty, 0),
            1.0,
            comfy.samplers.sampler_object("euler"),
            torch.tensor([high, high, high, low, 0.0]),
            positive,
            tm.conditioning(built.name, 2),
            empty,
            disable_pbar=True,
            seed=0,
        )
    return tm.flat(samples)


def check_hit(built: Built, model: Any, last: int, control: bool = False) -> torch.Tensor:
    """The third evaluation is skipped; its output must be what computing would have given."""
    positive = tm.conditioning(built.name, 1)
    if control:
        positive = tm.add_control(positive, tm.control_for(built.name))
    accelerated = tm.attach(
        model, Bn_compute_blocks=last, scm_compute_bins="2,1", scm_cache_bins="1"
    )
    plain = thrice_the_same(built, model, positive)
    quick = thrice_the_same(built, accelerated, positive)
    assert [e.skipped for e in tm.report_of(accelerated).evaluations] == [False, False, True, False]
    assert (quick - plain).norm() / plain.norm() < 1e-5
    return plain


@few
@pytest.mark.parametrize("last", [0, *whole([1])])
def test_a_hit_at_an_unchanged_input_equals_recomputing(built: Built, last: int) -> None:
    if last and not built.has_last_blocks:
        pytest.skip("its last blocks read what the skipped blocks would have made")
    check_hit(built, built.model, last)


@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("name", [name for name, tiny in tm.TINY.items() if tiny.control])
def test_a_control_counts_once(name: str, last: int) -> None:
    built = build(name)
    controlled = check_hit(built, built.model, last, control=True)
    without = check_hit(built, built.model, last)
    assert (without - controlled).norm() / without.norm() > 1e-3, "the control really acts"


@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("name", ["z_image", "lumina2", "qwen_image_edit", "wan_vace", "wan22_s2v"])
def test_a_patch_between_blocks_counts_once(name: str, last: int) -> None:
    """As the control layers of Z-Image and Qwen-Image do: an add in place after every block."""
    built = build(name)
    generator = torch.Generator().manual_seed(5)
    width = 256 if name == "z_image" else 32
    adds = torch.randn(8, width, generator=generator)

    def patch(arguments: dict[str, Any]) -> dict[str, Any]:
        arguments["img"] += adds[arguments["block_index"]].to(arguments["img"].device)
        return arguments

    patched = built.model.clone()
    patched.model_options["transformer_options"].setdefault("patches", {})["double_block"] = [patch]
    with_patch = check_hit(built, patched, last)
    without = check_hit(built, built.model, last)
    assert (without - with_patch).norm() / without.norm() > 1e-3, "the patch really acts"


@pytest.mark.parametrize("name", ["qwen_image_edit", "flux_kontext", "z_image_omni"])
def test_prompts_with_other_references_stay_apart(name: str) -> None:
    """Positive and negative prompt with references of other number and size in one run."""
    built = build(name)
    negative = tm.conditioning(name, 2)
    reference = negative[0][1]["reference_latents"][0]
    negative[0][1]["reference_latents"] = [reference[..., :4]]
    plain = built.sample(cfg=2.0, negative=negative)
    never = tm.attach(built.model, **NEVER)
    assert torch.equal(built.sample(never, cfg=2.0, negative=negative), plain)
    accelerated = tm.attach(built.model, **SEVEN_STEPS)
    quick = built.sample(accelerated, cfg=2.0, negative=negative)
    report = tm.report_of(accelerated)
    assert {e.branch for e in report.evaluations} == {"cond", "uncond"}
    assert report.skipped == 2 * 3
    assert quick.isfinite().all() and not torch.equal(quick, plain)


def test_an_evaluation_that_fills_the_hosts_own_cache_is_never_skipped() -> None:
    """HiDream O1 whose prompts do not fit into the host's cache: every layer makes keys anew."""
    built = build("hidream_o1")
    network = built.model.model.diffusion_model
    forgetful = tm.watch(built.model, lambda *_: network.clear_kv_cache())
    plain = built.sample(forgetful)
    accelerated = tm.attach(forgetful, **SEVEN_STEPS)
    assert torch.equal(built.sample(accelerated), plain)
    report = tm.report_of(accelerated)
    assert report.skipped == 0
    assert all(len(entry["kv"]) == 4 for entry in network._kv_cache_entries)


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_family_runs_uncached_and_says_why(name: str) -> None:
    built = build(name)
    plain = built.sample()
    accelerated = tm.attach(built.model, **SEVEN_STEPS)
    assert torch.equal(built.sample(accelerated), plain)
    report = tm.report_of(accelerated)
    assert report.skipped == 0
    assert any("runs uncached" in notice for notice in report.notices)


known_host = pytest.mark.skipif(
    host_version() != NEWEST and not is_newer(host_version()),
    reason="an older ComfyUI has fewer models",
)


@known_host
def test_every_transformer_of_the_host_is_covered() -> None:
    import comfy.supported_models

    of_host = {config.__name__ for config in comfy.supported_models.models}
    covered = {tiny.config for tiny in tm.TINY.values()}
    for config, reason in NOT_COVERED.items():
        print(f"not covered: {config}: {reason}")
    missing = of_host - covered - NOT_TRANSFORMERS - set(NOT_COVERED)
    gone = (covered | NOT_TRANSFORMERS | set(NOT_COVERED)) - of_host
    if is_newer(host_version()) and (missing or gone):
        pytest.skip(
            f"ComfyUI {host_version()} has models that the newest pinned one has not, "
            f"{sorted(missing)}, and no longer {sorted(gone)}"
        )
    assert not missing, (
        f"ComfyUI {host_version()} has models without a test here: {sorted(missing)}. For each, "
        "add a tiny model to tests/tiny_families_*.py (and a family to acceleration/families/ if "
        "its network class is new), or name it in NOT_TRANSFORMERS or NOT_COVERED."
    )
    assert not gone, f"ComfyUI {host_version()} no longer has {sorted(gone)}"


@pytest.mark.every_host
@pytest.mark.parametrize("name", tm.TINY)
def test_positions_of_arguments_are_those_of_the_hosts_signatures(name: str) -> None:
    """A family file says what the pinned hosts have; signatures only mend what moves later."""
    import comfy.supported_models

    from dit_acceleration_pack.acceleration.families import FAMILIES, describe
    from dit_acceleration_pack.acceleration.families.signatures import forwards_at

    if not hasattr(comfy.supported_models, tm.TINY[name].config):
        pytest.skip(f"ComfyUI {host_version()} has no {tm.TINY[name].config}")
    try:
        network = tm.bare_model(name).diffusion_model
    except TypeError as error:  # A model of a newer host that an older one builds otherwise.
        pytest.skip(f"ComfyUI {host_version()} cannot build it: {error}")
    structure = describe(network)
    assert structure is not None
    assert any(structure.family is family for family in FAMILIES)
    for stack in structure.family.stacks:
        assert forwards_at(network, stack.path)


@known_host
def test_every_family_is_covered() -> None:
    import comfy.supported_models

    from dit_acceleration_pack.acceleration.families import FAMILIES, describe

    gone = [n for n, tiny in tm.TINY.items() if not hasattr(comfy.supported_models, tiny.config)]
    if is_newer(host_version()) and gone:
        pytest.skip(f"ComfyUI {host_version()} no longer has {gone}")
    networks = [tm.bare_model(name).diffusion_model for name in tm.TINY]
    structures = [describe(network) for network in networks]
    assert {s.family.name for s in structures if s is not None} == {f.name for f in FAMILIES}
