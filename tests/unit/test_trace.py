"""Where the time went, on traces made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from dit_acceleration_pack.acceleration.profiling import trace
from dit_acceleration_pack.acceleration.profiling.trace import break_down, part_of


def event(cat: str, name: str, begin: float, end: float, **args: Any) -> dict[str, Any]:
    where = {"pid": 1, "tid": 7} if "gpu" not in cat and cat != "kernel" else {"pid": 0, "tid": 3}
    return {"ph": "X", "cat": cat, "name": name, "ts": begin, "dur": end - begin, "args": args} | (
        where
    )


def ours(name: str, begin: float, end: float) -> dict[str, Any]:
    return event("user_annotation", trace.RANGE + name, begin, end)


HOST = [
    ours("evaluation 2", 1000, 1100),
    ours("block blocks.0", 1010, 1090),
    event("cpu_op", "aten::linear", 1020, 1040),
    event("cpu_op", "aten::addmm", 1025, 1038),
    event("cpu_op", "aten::scaled_dot_product_attention", 1045, 1060),
    event("cpu_op", "aten::mm", 1050, 1055),
    ours("decision", 1070, 1080),
    event("cpu_op", "aten::linear", 1072, 1075),
    event("cpu_op", "aten::mul", 1110, 1115),
    ours("evaluation 3", 1120, 1200),
    event("cpu_op", "aten::add", 1130, 1140),
    event("cpu_op", "aten::mul", 1300, 1400),
    {"ph": "i", "name": "Record Window End", "ts": 1500},
]


def test_on_a_processor_parts_add_up_to_the_time_between_first_and_last() -> None:
    found = break_down(reversed(HOST))
    assert found.evaluations == 2 and not found.on_device
    in_us = {name: round(1000 * ms) for name, ms in found.parts.items()}
    assert in_us == {
        "attention": 15,  # with the product in it
        "linear": 20,
        "norm": 0,
        "offload copies": 0,
        "caching decisions": 10,  # with the operator in it
        "other": 10,
        "sampler": 20,
        "gaps": 100 - 20 - 15 - 10 + 80 - 10,
    }
    assert found.total_ms == pytest.approx(sum(found.parts.values())) == pytest.approx(0.2)


def test_operations_count_their_own_time() -> None:
    operations = {o.name: o for o in break_down(HOST).operations}
    assert operations["aten::linear"].calls == 2
    assert operations["aten::linear"].host_ms == pytest.approx((20 - 13 + 3) / 1000)
    assert operations["aten::addmm"].host_ms == pytest.approx(0.013)
    assert operations["aten::mul"].calls == 1, "what lies behind the last evaluation is left out"


def launch(at: float, correlation: int) -> dict[str, Any]:
    return event("cuda_runtime", "cudaLaunchKernel", at, at + 1, correlation=correlation)


def test_on_a_gpu_kernels_count_for_what_launched_them() -> None:
    found = break_down(
        [
            *HOST,
            launch(1030, 1),  # in addmm
            launch(1052, 2),  # in the attention
            launch(1073, 3),  # in the decision
            launch(1085, 4),  # in the block, outside any operator, as Triton does
            launch(1086, 5),
            launch(1112, 6),  # between evaluations
            launch(1310, 7),  # behind the last one: the sampler's, not the model's
            event("kernel", "ampere_sgemm", 1040, 1060, correlation=1),
            event("kernel", "some_product", 1060, 1090, correlation=2),
            event("gpu_memcpy", "Memcpy DtoH (Device -> Pageable)", 1090, 1094, correlation=3),
            event("kernel", "_attn_fwd", 1094, 1104, correlation=4),
            event("gpu_memcpy", "Memcpy HtoD (Pinned -> Device)", 1050, 1100, correlation=5),
            event("kernel", "elementwise", 1150, 1160, correlation=6),
            event("kernel", "elementwise", 1210, 1220, correlation=99),
            event("kernel", "elementwise", 1320, 1330, correlation=7),
            event("gpu_user_annotation", "dit_acceleration: evaluation 2", 1040, 1220),
        ]
    )
    assert found.on_device and found.evaluations == 2
    in_us = {name: round(1000 * ms) for name, ms in found.parts.items()}
    assert in_us == {
        "attention": 40,
        "linear": 20,
        "norm": 0,
        "offload copies": 50,
        "caching decisions": 4,
        "other": 10,
        "sampler": 10,
        "gaps": 220 - (1104 - 1040) - 10 - 10,  # streams that overlap count once
    }
    assert found.total_ms == pytest.approx(0.22), "until the device is done"
    operations = {o.name: o for o in found.operations}
    assert operations["aten::addmm"].device_ms == pytest.approx(0.02)
    assert operations["aten::mm"].device_ms == pytest.approx(0.03)
    assert "aten::add" not in operations, "it had the device do nothing"


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("aten::_scaled_dot_product_flash_attention", "attention"),
        ("sageattention::qk_int8_sv_f16", "attention"),
        ("aten::bmm", "attention"),
        ("aten::linear", "linear"),
        ("aten::_scaled_mm", "linear"),
        ("aten::mm", "linear"),
        ("aten::native_layer_norm", "norm"),
        ("aten::rms_norm", "norm"),
        ("aten::normal_", None),
        ("aten::add", None),
        ("aten::_to_copy", None),
    ],
)
def test_names(name: str, part: str | None) -> None:
    assert part_of(name) == part


def test_a_trace_without_our_ranges_is_empty() -> None:
    assert break_down([event("cpu_op", "aten::mm", 0, 1)]).evaluations == 0
