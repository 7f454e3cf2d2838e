"""The benchmark in real size, with tiny widths: every model is built, sampled and compared."""

from __future__ import annotations

import argparse
from types import ModuleType
from typing import Any

import pytest
from whole import whole

from comfyui_environment import ROOT

MODELS = ("FLUX.1-dev", "Qwen-Image", "Wan 2.1 14B")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import full_size

    return full_size


def measured(script: ModuleType, name: str, *settings: str) -> dict[str, Any]:
    options = argparse.Namespace(tiny=True, dynamic=False, repeats=1)
    bench = script.Bench(name, options, lambda _: None)
    try:
        known = {row.name: row for row in script.rows.all_rows()}
        return {setting: bench.measure(known[setting]) for setting in settings}
    finally:
        bench.close()


@pytest.mark.parametrize("name", [MODELS[-1], *whole(MODELS[:-1])])
def test_rows_of_every_model(script: ModuleType, name: str) -> None:
    steps = script.MODELS[name].steps
    found = measured(script, name, "plain", "nothing skipped", "balanced", "attention sdpa")
    assert found["plain"]["speedup"] == 1.0 and found["plain"]["finite"]
    assert found["nothing skipped"]["identical"]
    assert found["nothing skipped"]["computed"] == found["nothing skipped"]["evaluations"] == steps
    balanced = found["balanced"]
    assert 5 <= balanced["computed"] < steps and not balanced["identical"] and balanced["finite"]
    assert balanced["ms_skipped"] > 0 and balanced["ms_computed"] > 0, "both were timed"
    assert balanced["residual_bytes"] > 0
    assert "sdpa" in found["attention sdpa"]["said"][0]


@pytest.mark.whole
def test_rows_of_other_levers(script: ModuleType) -> None:
    found = measured(
        script, MODELS[0], "plain", "progressive fast", "progressive fast, balanced",
        "quantize int8",
    )  # fmt: skip
    for name in ("progressive fast", "progressive fast, balanced"):
        assert found[name]["coarse"] >= 1 and found[name]["share"] > 0, name
        assert found[name]["finite"] and not found[name]["identical"]
    assert found["quantize int8"]["finite"]
    assert any("int8" in said for said in found["quantize int8"]["said"])


def test_rows_that_fail_say_why(script: ModuleType) -> None:
    def fail() -> dict[str, Any]:
        raise ValueError("too wide\nand more")

    assert script.guarded(fail) == {"reason": "ValueError: too wide"}


def test_compiled_rows_need_a_gpu(script: ModuleType) -> None:
    import comfy.model_management

    row = measured(script, "FLUX.1-dev", "speed, compiled")["speed, compiled"]
    if comfy.model_management.get_torch_device().type != "cuda":
        assert row == {"reason": "needs a CUDA device"}
    else:
        assert row["compile_seconds"] > 0 and row["finite"]
        assert row["computed"] == row["evaluations"] == script.MODELS["FLUX.1-dev"].steps


def test_the_budget_and_what_is_there_choose_the_rows(script: ModuleType) -> None:
    options = argparse.Namespace(began=0.0, budget=1.0, only=["plain", "bal*"])
    data = {"rows": [{"model": "FLUX.1-dev", "setting": "plain"}]}
    session = script.Session(options, data)
    assert not session.is_wanted("FLUX.1-dev", "plain"), "it is there"
    assert session.is_wanted("FLUX.1-dev", "balanced")
    assert session.is_wanted("Wan 2.1 14B", "plain")
    assert not session.is_wanted("FLUX.1-dev", "ultra"), "it was not asked for"
    bench = script.Bench("FLUX.1-dev", argparse.Namespace(tiny=False, repeats=1), lambda _: None)
    assert session._rows_of(bench, 0.0)
    assert session.late and all("FLUX.1-dev: balanced" in late for late in session.late)
    assert len(data["rows"]) == 1, "nothing was started"


def test_real_sizes(script: ModuleType) -> None:
    """Parameters, counted on the host's classes without memory for them."""
    import comfy.supported_models
    import torch

    billions = {"FLUX.1-dev": 11.9, "Qwen-Image": 20.4, "Wan 2.1 14B": 14.3}
    for name, expected in billions.items():
        full = script.MODELS[name]
        config = getattr(comfy.supported_models, full.config)(dict(full.network))
        config.set_inference_dtype(torch.bfloat16, None)
        model = config.get_model({}, "", device=torch.device("meta"))
        count = sum(p.numel() for p in model.diffusion_model.parameters())
        assert count / 1e9 == pytest.approx(expected, rel=0.01), name
