"""Shows on a real ComfyUI what the acceleration saves and costs: ``python3 workflows/demo.py``.

Starts ComfyUI headless, posts the example workflow ``workflows/dit_acceleration_demo.json`` over
HTTP for several prompts: plain, with presets of Performance Mode, with Cache-DiT, and plain with so
many fewer steps that it takes as long. Writes ``demo.png`` and ``demo.json``. ``--serve`` leaves
ComfyUI running instead, with the workflow among its templates.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from comfyui_environment import (
    ROOT,
    Environment,
    SetupError,
    add_arguments,
    ensure_environment,
    say,
)
from comfyui_server import Server, ServerError

# What measuring and drawing need of an interpreter beyond the standard library.
NEEDS = ("torch", "cache_dit", "numpy", "PIL", "skimage", "safetensors")
INSIDE = "DIT_ACCEL_DEMO_INSIDE"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Samples plain and accelerated in a real ComfyUI and measures both."
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("demo_output"),
        metavar="DIR",
        help="folder for demo.png and demo.json (default: %(default)s)",
    )
    parser.add_argument(
        "--settings",
        nargs="+",
        metavar="NAME",
        help="of Performance Mode: quality, balanced, fast, ultra; of Cache-DiT: defaults, "
        "taylorseer, trajectory, scm_fast_static; or all (default: quality balanced fast defaults)",
    )
    parser.add_argument(
        "--cfg", nargs="+", type=float, default=[3.0], metavar="CFG", help="default: 3"
    )
    parser.add_argument("--prompts", type=int, default=8, metavar="N", help="how many, up to 8")
    parser.add_argument("--steps", type=int, default=28, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--device",
        choices=("cpu", "auto"),
        default="cpu",
        help="auto lets ComfyUI use a GPU (default: cpu)",
    )
    parser.add_argument(
        "--serve",
        action="store_true",
        help="only start ComfyUI, with the demo in the template browser, until Ctrl-C",
    )
    add_arguments(parser)
    return parser.parse_args()


def serve(environment: Environment, device: str) -> int:
    """Run ComfyUI for a person until Ctrl-C."""
    say(f"Starting ComfyUI {environment.version}")
    with Server(environment, device) as server:
        print(f"ComfyUI is at {server.url}", flush=True)
        say("Open Templates, choose ComfyUI-DiT-Acceleration and its demo. Ctrl-C stops it.")
        while server.running:
            time.sleep(0.5)
        raise ServerError(f"ComfyUI ended.\n{server.log_tail()}")


def demonstrate(environment: Environment, options: argparse.Namespace) -> int:
    """Measure, print the table, and write ``demo.png`` and ``demo.json``."""
    # Only the environment's interpreter has what this needs.
    import demo_measurement as measurement

    names = measurement.chosen(options.settings)
    started = time.monotonic()
    say(f"Starting ComfyUI {environment.version}")
    with Server(environment, options.device) as server:
        say(f"  ready after {time.monotonic() - started:.0f} s")
        workflow = measurement.Workflow(server)
        results = measurement.measure(workflow, names, options)
        device = server.get("/system_stats")["devices"][0]["name"]
    rows = [result.row() for result in results]
    print(measurement.table(rows), flush=True)
    settings = {name: workflow.values_of(measurement.SETTINGS[name]) for name in names}
    data = {"rows": rows, "settings": settings, "environment": describe(environment, device)}
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "demo.json").write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    measurement.write_picture(
        results, workflow.prompts[: options.prompts], options.output / "demo.png"
    )
    say(f"Wrote demo.png and demo.json to {options.output} ({time.monotonic() - started:.0f} s)")
    return 0


def describe(environment: Environment, device: str) -> dict[str, Any]:
    """The machine and the versions that the figures belong to."""
    from importlib.metadata import version

    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    pack = re.search(r'^version = "(.+)"', text, re.MULTILINE)
    return {
        "machine": processor(),
        "cores": os.cpu_count(),
        "device": device,
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "comfyui": environment.version,
        "cache_dit": version("cache-dit"),
        "pack": pack[1] if pack else "unknown",
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def processor() -> str:
    """The model name of the processor."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return name[1] if name else platform.processor() or platform.machine()


def main() -> int:
    options = parse()
    needs = NEEDS[:2] if options.serve else NEEDS
    environment = ensure_environment(
        options.host_version, options.comfyui, options.python, needs=needs
    )
    if options.serve:
        return serve(environment, options.device)
    if os.environ.get(INSIDE):
        return demonstrate(environment, options)
    command = [str(environment.python), str(Path(__file__).resolve()), *sys.argv[1:]]
    os.environ[INSIDE] = "1"
    if os.name != "nt":
        os.execv(command[0], command)  # One process: whoever ends it ends the server too.
    return subprocess.run(command).returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (SetupError, ServerError) as error:
        say(f"error: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
