"""A script of benchmarks/ as a module, for the tests of what it computes."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from comfyui_environment import ROOT


def benchmark_script(name: str) -> ModuleType:
    """Import ``benchmarks/<name>.py`` anew, under a name that nothing else has."""
    path = ROOT / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their module
    spec.loader.exec_module(module)
    return module
