"""The tables of the speed on a GPU, from a file of results as the script writes it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from comfyui_environment import ROOT

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
    {"model": "FLUX", "setting": "attention sage", "reason": "sage: gives wrong results here"},
    {
        "model": "FLUX",
        "setting": "synchronisations",
        "steps": 10,
        "plain": {"aten::item": 1.0, "Memcpy DtoH": 0.5, "evaluations": 10, "computed": 10},
        "balanced": {"aten::item": 2.0, "Memcpy DtoH": 1.5, "evaluations": 10, "computed": 5},
    },
    timed("Wan", "plain", cfg=5.0, steps=10, seconds=24.0, evaluations=10, computed=10),
]


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, reading made-up results."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import readme_markdown

    data = {"environment": ENVIRONMENT, "dtype": "bfloat16", "memory_manager": "classic"}
    text = json.dumps(data | {"rows": ROWS})
    (tmp_path / "full_size.json").write_text(text, encoding="utf-8")
    monkeypatch.setattr(readme_markdown, "RESULTS", tmp_path)
    spec = importlib.util.spec_from_file_location(
        "readme_full_size", ROOT / "benchmarks" / "readme_full_size.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_row_is_shown(tables: ModuleType) -> None:
    text = tables.full_size()
    assert "**FLUX**, cfg 1, 28 steps" in text and "**Wan**, cfg 5, 10 steps" in text
    assert "| plain | 28 of 28 | 6.00 | 1.00 | 200.0 | – | 3.0 | – | identical |" in text
    assert "| balanced | 11 of 28 | 3.00 | 2.00 | 200.0 | 9.0 | 3.0 | 50 | 31.2 dB |" in text
    assert "| 6.00 (compiling 41) |" in text
    assert "| plain, 10 of 10 computed | 1 | 0.5 |" in text
    assert "| balanced, 5 of 10 computed | 2 | 1.5 |" in text
    assert "Not measured: attention sage (sage: gives wrong results here)." in text
    assert "random weights" in text and "A GPU" in text
    assert "bfloat16, classic memory manager" in text


def test_the_short_table_has_a_column_a_model(tables: ModuleType) -> None:
    text = tables.full_size_brief()
    assert "|  | FLUX, cfg 1, 28 steps | Wan, cfg 5, 10 steps |" in text
    assert "| plain | 6.0 s | 24.0 s |" in text
    assert "| `balanced` | 2.00 (11 of 28) | – |" in text
    assert "| `ultra` |" not in text, "nobody measured it"
    assert "nothing of picture quality" in text
