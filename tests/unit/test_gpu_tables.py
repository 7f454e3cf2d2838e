"""The tables of the speed on a GPU, from files of results as the scripts write them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmark_script import benchmark_script

Tables = dict[str, Callable[[], str]]

ENVIRONMENT = {
    "processor": "A processor",
    "device": "A GPU",
    "threads": 16,
    "system": "Linux",
    "comfyui": "0.30.0",
    "torch": "2.11.0",
    "cache_dit": "1.5.3",
    "date": "2026-01-02",
}


def timed(model: str, setting: str, **changes: Any) -> dict[str, Any]:
    """A row as it is written."""
    row = {"model": model, "setting": setting, "cfg": 1.0, "steps": 28, "seconds": 6.0}
    row |= {"speedup": 1.0, "identical": True, "psnr": None, "peak_bytes": 3 * 2**30}
    return row | {"evaluations": 28, "computed": 28, "ms_computed": 200.0} | changes


ROWS = [
    timed("FLUX", "plain"),
    timed("FLUX", "balanced", seconds=3.0, speedup=2.0, computed=11, identical=False, psnr=31.25)
    | {"ms_skipped": 9.0, "residual_bytes": 50 * 2**20},
    timed("FLUX", "speed, compiled", speedup=1.25, compile_seconds=41.0),
    timed("FLUX", "nothing skipped", speedup=0.99),
    timed("FLUX", "plain again", speedup=1.01),
    timed("FLUX", "attention auto", speedup=1.14, steps=4)
    | {"said": ["Attention Backend (auto): of 228 calls sdpa_cudnn 228 (output-preserving)."]},
    {"model": "FLUX", "setting": "attention sage", "reason": "sage: gives wrong results here"},
    {"model": "FLUX", "setting": "attention a", "reason": "a: does not work (ImportError: old)"},
    {"model": "FLUX", "setting": "attention b", "reason": "b: does not work (ImportError: old)"},
    {
        "model": "FLUX",
        "setting": "synchronisations",
        "steps": 10,
        "plain": {"aten::item": 1.0, "Memcpy DtoH": 0.5, "evaluations": 10, "computed": 10},
        "balanced": {"aten::item": 2.0, "Memcpy DtoH": 1.5, "evaluations": 10, "computed": 5},
    },
    timed("Wan", "plain", cfg=5.0, steps=10, seconds=24.0, evaluations=10, computed=10),
    timed("Wan", "nothing skipped", speedup=0.998),
    timed("Wan", "quality", ms_skipped=31.0),
]


def called(shape: str, tokens: int, backend: str, ms: float, exact: bool) -> dict[str, Any]:
    """A row of one kernel as it is written."""
    quality = "output-preserving" if exact else "quality-tradeoff"
    row = {"shape": shape, "tokens": tokens, "backend": backend, "ran": backend, "ms": ms}
    row |= {"error": 0.002 if exact else 0.039, "tflops": 500.0, "ratio_to_sdpa": 8.0 / ms}
    return row | {"quality_class": quality}


CALLS = [
    called("Long", 9000, "sdpa", 8.0, exact=True),
    called("Long", 9000, "flash3", 6.4, exact=True),
    called("Long", 9000, "sage", 4.0, exact=False),
    {"shape": "Long", "tokens": 9000, "backend": "broken", "reason": "broken: does not work here"},
    called("Short", 4000, "sdpa", 8.0, exact=True),
    called("Short", 4000, "sage", 10.0, exact=False),
]


PRESETS = [
    {"model": "FLUX", "steps": steps, "cfg": cfg, "approximation": name, "psnr": psnr}
    | {"plain_psnr": psnr - 9}
    for steps, cfg, name, psnr in (
        (20, 3.0, "balanced", 51.0),
        (28, 1.0, "balanced", 52.0),
        (28, 3.0, "balanced", 53.0),
        (28, 3.0, "quality", 63.0),
    )
]


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tables:
    """What makes each table, reading made-up results."""
    script = benchmark_script("tables/write_tables")
    import table_markdown

    def write(name: str, **data: Any) -> None:
        (tmp_path / f"{name}.json").write_text(json.dumps(data), encoding="utf-8")

    what = {"environment": ENVIRONMENT, "dtype": "bfloat16"}
    write("full_size", **what, memory_manager="classic", rows=ROWS)
    installed = ENVIRONMENT | {"attention_packages": {"sageattention": "2.2.0"}}
    write("attention", **what | {"environment": installed}, repeats=10, rows=CALLS)
    write("performance", environment=ENVIRONMENT, rows=PRESETS)
    monkeypatch.setattr(table_markdown, "RESULTS", tmp_path)
    found: Tables = script.TABLES
    return found


def test_every_row_is_shown(tables: Tables) -> None:
    text = tables["full-size"]()
    assert "**FLUX**, cfg 1, 28 steps" in text and "**Wan**, cfg 5, 10 steps" in text
    assert "| plain | 28 of 28 | 6.00 | 1.00 | 200.0 | – | 3.0 | – | identical |" in text
    assert "| balanced | 11 of 28 | 3.00 | 2.00 | 200.0 | 9.0 | 3.0 | 50 | 31.2 dB |" in text
    assert "| 6.00 (compiling 41) |" in text
    assert "| plain, 10 of 10 computed | 1 | 0.5 |" in text
    assert "| balanced, 5 of 10 computed | 2 | 1.5 |" in text
    assert (
        "Not measured: attention sage (sage: gives wrong results here); attention a, attention b "
        "(the package is missing or too old)."
    ) in text
    assert "random weights" in text and "A GPU" in text
    assert "bfloat16, classic memory manager" in text


def test_a_preset_shows_its_best_model_and_the_demo_at_one_guidance(tables: Tables) -> None:
    text = tables["presets"]()
    assert "| `quality` (default) |" in text and "| 1.00× | 63.0 dB | 54.0 dB |" in text
    assert "| 2.00× | 53.0 dB | 44.0 dB |" in text
    assert text.count("| – | – | – |") == 3, "nobody measured the other three"
    assert "the best of FLUX, Wan, in real size with random weights, on one A GPU" in text


def test_attention_kernels(tables: Tables) -> None:
    text = tables["attention"]()
    lines = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert [line.split(" | ")[:2] for line in lines] == [
        ["| Short", "`sdpa`"],
        ["| Short", "`sage`"],
        ["| Long", "`sage`"],
        ["| Long", "`flash3`"],
        ["| Long", "`sdpa`"],
    ]
    assert "| Long | `sage` | quality-tradeoff | 9000 | 4.00 | 500 | 2.00 | 3.9e-02 |" in text
    assert "not working on this device: `broken`." in text
    assert "Installed: sageattention 2.2.0." in text
