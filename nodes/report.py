"""Acceleration Report."""

from __future__ import annotations

import json
from typing import Any

from comfy_api.latest import io

from ..acceleration import host
from ..acceleration.plots import as_image_batch, message_plot, quantize_plot, run_plot
from .shared_inputs import CATEGORY, node_id
from .shown import temporary

NO_ACCELERATION = "This MODEL has no acceleration node before it."
NOT_SAMPLED = "This MODEL has not been sampled yet: connect `after` to what comes after sampling."


class AccelerationReport(io.ComfyNode):
    """What the last sampling run of a model did."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        anything = io.MatchType.Template("after")
        return io.Schema(
            node_id="AccelReport",
            display_name="Acceleration Report",
            category=CATEGORY,
            description="Tells what the last sampling run of this model computed, skipped and "
            "saved, and why.",
            search_aliases=["cache report", "skipped steps"],
            inputs=[
                io.Model.Input("model", tooltip="The model that was given to the sampler."),
                io.MatchType.Input(
                    "after",
                    template=anything,
                    tooltip="Anything made after sampling, so that the report waits for it. It is "
                    "handed through.",
                ),
            ],
            outputs=[
                io.MatchType.Output(template=anything, display_name="after"),
                io.String.Output(display_name="text", tooltip="The report in words."),
                io.String.Output(display_name="json", tooltip="The report as JSON."),
                io.Image.Output(
                    display_name="plot",
                    tooltip="Change and threshold, decisions, and time of every evaluation; "
                    "without caching the error of every quantized layer.",
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            is_output_node=True,
            not_idempotent=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> float:
        """Never served from the host's cache: a report is of the run that just ended."""
        return float("nan")

    @classmethod
    def execute(cls, model: Any, after: Any) -> io.NodeOutput:
        levers = host.levers_of(model)
        samplers = {node for lever in levers.values() for node in lever.sampled_by()}
        prompt = getattr(cls.hidden, "prompt", None)
        sampler = host.nearest_sampler(prompt, str(node_id(cls)), "after", samplers)
        found = {key: lever.report_of(sampler) for key, lever in levers.items()}
        made = [(key, report) for key, report in found.items() if report is not None]
        # What was skipped is what people look for first.
        reports = dict(sorted(made, key=lambda entry: entry[0] != host.KEY))
        if reports:
            text = "\n\n".join(report.text() for report in reports.values())
        else:
            text = NOT_SAMPLED if levers else NO_ACCELERATION
        data = json.dumps({**_as_dict(reports), "sampled_by": sampler})
        plot = as_image_batch(_plot(reports, text))
        drawn = {host.KEY, host.QUANTIZE_KEY} & set(reports)
        shown = {"text": [text, data], "drawings": temporary(plot, cls) if drawn else []}
        return io.NodeOutput(after, text, data, plot, ui=shown)


def _as_dict(reports: dict[str, host.LeverReport]) -> dict[str, Any]:
    """The caching report's fields, and every other lever's under the last part of its key."""
    found: dict[str, Any] = {}
    for key, report in reports.items():
        if key == host.KEY:
            found |= report.as_dict()
        else:
            found[key.rpartition(".")[2]] = report.as_dict()
    return found


def _plot(reports: dict[str, host.LeverReport], text: str) -> Any:
    """Of the caching run; without one of a quantized model, and else a sentence."""
    if host.KEY in reports:
        return run_plot(reports[host.KEY].as_dict())
    if host.QUANTIZE_KEY in reports:
        return quantize_plot(reports[host.QUANTIZE_KEY].as_dict())
    return message_plot(text.partition("\n")[0])
