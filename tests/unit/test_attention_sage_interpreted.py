"""The real kernels of SageAttention 1.0.6, run on the CPU by Triton's interpreter.

Skipped where ``triton`` or ``sageattention`` 1.x is not what would be imported. The interpreter
must be chosen before Triton is imported, so this runs in a process of its own. Two things stand
between the package and the CPU and are moved out of the way there: ``sageattn`` insists on CUDA
tensors, and Triton 3.6's interpreter turns arrays of one element into numbers in a way that numpy
2.4 refuses.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """
import importlib.util, json, sys
sys.path[:0] = sys.argv[2:]
import torch
from triton.runtime import interpreter

patch = interpreter._patch_lang_tensor
def patched(tensor, *scope):
    patch(tensor, *scope)
    tensor.__index__ = lambda self: int(self.handle.data.item())
interpreter._patch_lang_tensor = patched

class OnCuda(torch.Tensor):
    is_cuda = True

import sageattention
original = sageattention.sageattn
def sageattn(q, k, v, tensor_layout="HND", is_causal=False, sm_scale=None, smooth_k=True):
    out = original(*(t.as_subclass(OnCuda) for t in (q, k, v)), tensor_layout=tensor_layout,
                   is_causal=is_causal, sm_scale=sm_scale, smooth_k=smooth_k)
    return out.as_subclass(torch.Tensor)
sageattention.sageattn = sageattn

spec = importlib.util.spec_from_file_location(
    "pack", sys.argv[1] + "/__init__.py", submodule_search_locations=[sys.argv[1]])
sys.modules["pack"] = importlib.util.module_from_spec(spec)
import dataclasses
from pack.acceleration.attention import BACKENDS, AttentionRun, AttentionSettings, probe

backend = BACKENDS["sage"]
limits = dataclasses.replace(backend.limits, devices=None)
BACKENDS["sage"] = dataclasses.replace(backend, limits=limits)
found = {}
for dtype in (torch.float16, torch.bfloat16):
    probed = probe.finding(BACKENDS["sage"], torch.device("cpu"), dtype)
    found[f"probe {dtype}"] = [probed.reason, probed.error, probed.counts_padding]
generator = torch.Generator().manual_seed(0)
for name, shape, kv, heads_first in (
    ("64", (1, 2, 100, 64), 128, True),
    ("96", (1, 2, 64, 96), 64, True),
    ("128", (2, 2, 64, 128), 192, False),
    ("ragged", (1, 2, 64, 64), 77, True),
):
    b, h, l, d = shape
    q, k, v = (torch.randn(b, h, n, d, generator=generator).half() for n in (l, kv, kv))
    k = k + 2
    exact = torch.nn.functional.scaled_dot_product_attention(q.float(), k.float(), v.float())
    exact = exact.transpose(1, 2).flatten(2)
    if not heads_first:
        q, k, v = (t.transpose(1, 2).flatten(2) for t in (q, k, v))
    before = k.clone()
    run = AttentionRun(AttentionSettings(backend="sage"))
    out = run.attend(None, (q, k, v, h), {"skip_reshape": heads_first})
    (who,) = run.close(True).counts
    error = float((out.float() - exact).norm() / exact.norm())
    found[name] = [*who, error, bool(torch.equal(k, before))]
print(json.dumps(found))
"""


def missing() -> str:
    """Why the test cannot run here; empty when it can."""
    for name in ("triton", "sageattention"):
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed"
    version = version_of_sage()
    if version.startswith("1."):
        return ""
    return f"this is for sageattention 1.0.6, not {version}: later kernels need a CUDA device"


def version_of_sage() -> str:
    """Version of the package that an import finds.

    Unknown when that is a copy earlier on the path than the installed one, as after a build in
    place: the metadata belong to the other then.
    """
    spec = importlib.util.find_spec("sageattention")
    try:
        distribution = importlib.metadata.distribution("sageattention")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
    installed = Path(str(distribution.locate_file("sageattention/__init__.py")))
    imported = Path(spec.origin) if spec is not None and spec.origin else None
    if imported is None or not installed.exists() or not imported.samefile(installed):
        return "unknown"
    return distribution.version


def test_the_version_is_that_of_what_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, built = tmp_path / "site", tmp_path / "built"
    for folder in (site, built):
        (folder / "sageattention").mkdir(parents=True)
        (folder / "sageattention" / "__init__.py").touch()
    metadata = site / "sageattention-1.0.6.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: sageattention\nVersion: 1.0.6\n")
    monkeypatch.delitem(sys.modules, "sageattention", raising=False)
    monkeypatch.syspath_prepend(str(site))
    assert version_of_sage() == "1.0.6"
    monkeypatch.syspath_prepend(str(built))
    assert version_of_sage() == "unknown"


@pytest.mark.skipif(bool(missing()), reason=missing() or "installed")
def test_the_real_kernels_through_the_router() -> None:
    root = Path(__file__).resolve().parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(root)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    for dtype in ("torch.float16", "torch.bfloat16"):
        reason, error, counts_padding = found[f"probe {dtype}"]
        assert reason == "" and 0.005 < error < 0.03
        # What the probe is there for: zeros behind the last key weigh like keys.
        assert counts_padding
    for size in ("64", "96", "128"):
        backend, reason, error, keys_left_alone = found[size]
        assert (backend, reason) == ("sage", "")
        assert 0.005 < error < 0.03, "quantized, and no worse than that"
        assert keys_left_alone
    backend, reason, error, _ = found["ragged"]
    assert backend == "sdpa" and "77 keys are no multiple of 64" in reason and error < 2e-3
