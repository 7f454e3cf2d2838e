"""Comparing presets on a running server: which prompts to queue, and what they gave.

Whoever compares (our page, ``workflows/compare_presets.py``) queues the prompts itself, one after
the other, through the host's own ``/prompt``: so they can be seen, canceled and waited for like
any other, and nobody else's are touched.
"""

from __future__ import annotations

import asyncio
import json
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..errors import AccelerationError, shown
from ..performance import presets
from ..plots import Column, presets_plot
from ..policies.cost import Cost
from ..policies.outlook import USUAL_COST, Guess, outlook
from ..quality.metrics import Comparison, compare
from .live_report import running_server
from .media import MOST_FRAMES, frames_of, saved

PLAN = "/dit_acceleration/presets/prompts"
RESULT = "/dit_acceleration/presets/result"
OUTLOOK = "/dit_acceleration/presets/outlook"

MOST_STEPS = 10000

ROOT = Path(__file__).resolve().parents[2]


def add_routes() -> None:
    """Offer them to clients of the server; nothing where ComfyUI's classes run without one."""
    server = running_server()
    if server is not None:
        server.routes.post(PLAN)(_answering(prompts))
        server.routes.post(RESULT)(_answering(result))
        server.routes.post(OUTLOOK)(_answering(planned))


def _answering(answer: Callable[[Any], dict[str, Any]]) -> Callable[..., Any]:
    """A handler that gives the answer as JSON, or its sentence with status 400."""
    from aiohttp import web

    async def handle(request: Any) -> Any:
        try:
            asked = await request.json()
            # Pictures are read and measured: not where the server answers everybody else.
            return web.json_response(await asyncio.to_thread(answer, asked))
        except AccelerationError as error:
            return web.json_response({"error": str(error)}, status=400)
        except json.JSONDecodeError:
            return web.json_response({"error": "The request is no JSON."}, status=400)

    return handle


def prompts(asked: Any) -> dict[str, Any]:
    """``{"prompt": …, "presets": […]}`` → ``{"runs": [{"name", "prompt"}]}``, the warm-up first."""
    asked = asked if isinstance(asked, dict) else {}
    wanted = asked.get("presets") or presets.PRESETS
    return {"runs": presets.runs_of(asked.get("prompt"), wanted, _output_types)}


def planned(asked: Any) -> dict[str, Any]:
    """``{"steps": 28, "computed_cost": 1.0, "skipped_cost": 0.04}`` → what each preset plans for;
    the costs may be left out, for a model that has not run yet."""
    asked = asked if isinstance(asked, dict) else {}
    steps = asked.get("steps")
    if not isinstance(steps, int) or not 1 <= steps <= MOST_STEPS:
        raise AccelerationError(f"steps is {shown(steps)}: it must be between 1 and {MOST_STEPS}.")
    costs = asdict(USUAL_COST)
    for name, lowest, highest in (("computed", 0.5, 2), ("skipped", 0, 1)):
        value = asked.get(f"{name}_cost")
        if value is None:
            continue
        if not (isinstance(value, int | float) and lowest <= value <= highest):
            raise AccelerationError(
                f"{name}_cost is {shown(value)}: it must be between {lowest} and {highest}."
            )
        costs[name] = value
    return {"steps": steps, "presets": outlook(Guess.of_steps(steps, Cost(**costs)))}


def _output_types(kind: str) -> Sequence[str]:
    import importlib

    # By name, as this is the host's module and not our package of that name.
    node = importlib.import_module("nodes").NODE_CLASS_MAPPINGS.get(kind)
    return tuple(str(t) for t in getattr(node, "RETURN_TYPES", None) or ())


def result(asked: Any) -> dict[str, Any]:
    """``{"runs": [{"name", "prompt_id"}]}`` of ended prompts → what they gave.

    The first run skips nothing; the others are compared with it. ``picture`` is a file of the
    server's temp folder, ``markdown`` the table for an issue.
    """
    runs = asked.get("runs") if isinstance(asked, dict) else None
    if not isinstance(runs, list) or not runs:
        raise AccelerationError("There is nothing to compare: no run has ended.")
    entries = [(str(run["name"]), _entry(str(run["prompt_id"]))) for run in runs]
    reports = {name: _reports(entry) for name, entry in entries}
    files = {name: dict(saved(entry["outputs"], _behind(entry))) for name, entry in entries}
    baseline, others = entries[0][0], [name for name, _ in entries[1:]]
    if not files[baseline]:
        raise AccelerationError(
            "No node after Performance Mode saves a picture or video: add Save Image."
        )
    full = {key: frames_of(item) for key, item in files[baseline].items()}
    quality = {}
    seen: list[tuple[torch.Tensor, torch.Tensor | None]] = [(_middle(full), None)]
    for name in others:
        frames = {key: frames_of(item) for key, item in files[name].items()}
        quality[name], differences = _quality(full, frames)
        seen.append((_middle(frames), differences))
    rows = presets.compared([presets.row_of(name, reports[name]) for name, _ in entries], quality)
    for row in rows:
        row["pictures"] = list(files[row["preset"]].values())
    found = {
        "version": presets.FORMAT,
        "model": _model(reports),
        "environment": environment(),
        "rows": rows,
        "notes": _notes(rows, full),
    }
    words = presets.table(rows)
    columns = [Column(row, *pictures) for row, pictures in zip(words, seen, strict=True)]
    picture = _keep(presets_plot(columns, presets.title(found)), entries[0][1]["prompt"][1])
    table = {"head": presets.HEAD, "rows": words}
    return {**found, "table": table, "markdown": presets.markdown(found), "picture": picture}


def _entry(prompt_id: str) -> Any:
    found = running_server().prompt_queue.get_history(prompt_id=prompt_id)
    if prompt_id not in found:
        raise AccelerationError(
            f"The run {shown(prompt_id)} is not in the server's history: leave the history as it "
            "is until the comparison is over."
        )
    return found[prompt_id]


def _behind(entry: Any) -> list[str]:
    graph = entry["prompt"][2]
    return presets.downstream(graph, presets.modes_of(graph))


def _reports(entry: Any) -> list[dict[str, Any]]:
    outputs = entry["outputs"]
    ours = [outputs[key] for key in outputs if key.startswith(presets.REPORT_ID)]
    return [json.loads(output["text"][1]) for output in ours]


def _middle(frames: Mapping[str, torch.Tensor]) -> torch.Tensor:
    first = next(iter(frames.values()))
    return first[len(first) // 2].float() / 255


def _quality(
    full: Mapping[str, torch.Tensor], frames: Mapping[str, torch.Tensor]
) -> tuple[dict[str, Any], torch.Tensor]:
    """All files of a run against those of the full one, and where the shown frame differs."""
    comparisons: list[Comparison] = []
    shown_differences = None
    for key, baseline in full.items():
        if key not in frames:
            raise AccelerationError(f"The runs saved different files: {key} is missing in one.")
        found, differences = compare(baseline.float() / 255, frames[key].float() / 255)
        comparisons.append(found)
        if shown_differences is None:
            shown_differences = differences[len(differences) // 2]
    together = comparisons[0]
    together.items = [item for each in comparisons for item in each.items]
    assert shown_differences is not None
    return together.as_dict(), shown_differences


def _model(reports: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """What was sampled, as the first report that knows it says."""
    names = ("family", "structure", "sampler", "steps")
    for report in (one for all_of_it in reports.values() for one in all_of_it):
        if report.get("family"):
            settings = report.get("performance", {})
            return {name: report[name] for name in names} | {"mode": settings.get("mode")}
    return dict.fromkeys((*names, "mode"))


def _notes(rows: Sequence[Mapping[str, Any]], full: Mapping[str, torch.Tensor]) -> list[str]:
    found = [
        "seconds are those of sampling, with the model loaded and warm; PSNR and SSIM are of the "
        "saved pictures, to those with everything computed and the same seed"
    ]
    if any(len(frames) == MOST_FRAMES for frames in full.values()):
        found.append(f"of a video {MOST_FRAMES} frames, spread evenly, were compared")
    if len(rows) > 1 and all(row["identical"] for row in rows[1:]):
        found.append("every preset gave the same pictures, so nothing was skipped: see the notices")
    return found


def environment() -> dict[str, str]:
    """The machine and the versions that figures belong to."""
    import comfy.model_management as management
    import comfyui_version

    device = management.get_torch_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    pack = re.search(r'^version = "(.+)"', project, re.MULTILINE)
    return {
        "device": name,
        "memory_gb": f"{management.get_total_memory(device) / 2**30:.0f}",
        "comfyui": str(comfyui_version.__version__),
        "pack": pack[1] if pack else "unknown",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
    }


def _keep(picture: Any, prompt_id: str) -> dict[str, str]:
    """Save a picture in the server's temp folder; as an item that ``/view`` takes."""
    import folder_paths

    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    name = f"presets_{re.sub('[^0-9A-Za-z]', '', prompt_id)}.png"
    picture.save(folder / name)
    return {"filename": name, "subfolder": "", "type": "temp"}
