"""What this pack adds to the start of ComfyUI: time, memory, and modules of others.

Every measurement is a process that has what ComfyUI has when it comes to custom nodes (torch, its
own nodes and server) and then loads this pack as ComfyUI does. The time is the process's own, so
that what else the machine does matters little; the least of several is shown, with the byte code
written before.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from comfyui_environment import ROOT, Environment, say

TIMES = 5

LOAD = """
import asyncio, gc, json, os, sys, time, tracemalloc
sys.path.insert(0, sys.argv[1])
pack, traced, sys.argv = sys.argv[2], sys.argv[3] == "traced", ["main.py", "--cpu"]
import comfy.options
comfy.options.enable_args_parsing()
import execution, nodes, server
asyncio.run(nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))
gc.collect()
before = set(sys.modules)
if traced:
    tracemalloc.start()
began = time.process_time()
loaded = asyncio.run(nodes.load_custom_node(pack))
seconds = time.process_time() - began
gc.collect()
held = tracemalloc.get_traced_memory()[0] if traced else None
added = sorted(set(sys.modules) - before)
own = [name for name in added if name.startswith(pack)]
print(json.dumps({
    "loaded": loaded, "seconds": seconds, "bytes": held, "modules": len(own),
    "others": sorted(set(added) - set(own)),
}))
"""


def measured(environment: Environment, traced: bool) -> dict[str, Any]:
    """Load the pack in a process of its own.

    Parameters
    ----------
    traced
        Count the bytes that Python holds afterwards; it takes several times as long then.

    Returns
    -------
    dict
        Whether it ``loaded``, ``seconds`` of the processor, ``bytes`` held by Python's allocator
        (None where not traced), how many ``modules`` of its own, and the names of ``others``.
    """
    script = [str(environment.python), "-c", LOAD, str(environment.comfyui), str(ROOT)]
    done = subprocess.run(
        [*script, "traced" if traced else "timed"],
        capture_output=True,
        text=True,
        cwd=environment.comfyui,
    )
    if done.returncode:
        raise RuntimeError(f"ComfyUI could not load the pack:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(_: argparse.Namespace, environment: Environment) -> int:
    seconds = min(measured(environment, traced=False)["seconds"] for _ in range(TIMES))
    found = measured(environment, traced=True)
    others = ", ".join(found["others"]) or "none"
    say(f"{seconds:.2f} s of the processor, {found['bytes'] / 2**20:.1f} MiB held by Python")
    say(f"{found['modules']} modules of its own, modules of others: {others}")
    return 0


if __name__ == "__main__":
    import harness

    harness.run(__file__, lambda _: None, main)
