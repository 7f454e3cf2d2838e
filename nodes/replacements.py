"""Nodes of other packs that no longer work, and which of ours opens in their place.

The host asks this table when a workflow holds a node that nobody provides: the web page offers to
replace it, and the server replaces it in prompts that come over the API. A pack that is installed
and loads keeps its nodes; they are never replaced.

The input names are those of the packs' last versions: ComfyUI-TeaCache, Comfy-WaveSpeed,
ComfyUI-MagCache, ComfyUI-KJNodes, ComfyUI-CacheDiT and ComfyUI_Patches_ll. The host can hand a
value on as it is or set a fixed one, it cannot calculate. So a value is carried only where ours
means the same, and what is measured on another scale keeps our default.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from comfy_api.latest import ComfyAPI, io

CACHE_DIT, TEA_CACHE = "AccelApplyCacheDiT", "AccelApplyTeaCache"
ATTENTION, PROFILE = "AccelAttentionBackend", "AccelProfile"


@dataclass(frozen=True)
class Replacement:
    """One dead node and ours in its place. Both take a MODEL first and give one first.

    Attributes
    ----------
    widgets
        The old node's widgets in their order, by which a saved workflow lists their values.
    carried
        Input of ours to the input of the old node whose value it takes over.
    fixed
        Input of ours to a value, where our default would change what the workflow does.
    """

    old: str
    new: str
    widgets: tuple[str, ...] = ()
    carried: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def input_mapping(self) -> list[dict[str, Any]]:
        """What becomes of each input, in the host's terms."""
        carried = {"model": "model", **self.carried}
        return [
            *({"new_id": new, "old_id": old} for new, old in carried.items()),
            *({"new_id": new, "set_value": value} for new, value in self.fixed.items()),
        ]


TEA_CACHE_WINDOW = {"start_percent": "start_percent", "end_percent": "end_percent"}
PATCHES_WINDOW = {"start_percent": "start_at", "end_percent": "end_at"}

REPLACEMENTS = (
    # ComfyUI-TeaCache: its model types have the names of our published coefficients.
    Replacement(
        "TeaCache",
        TEA_CACHE,
        ("model_type", "rel_l1_thresh", "start_percent", "end_percent", "cache_device"),
        {"rel_l1_thresh": "rel_l1_thresh", "coefficients": "model_type", **TEA_CACHE_WINDOW},
    ),
    # Comfy-WaveSpeed: the same measure as Cache-DiT's, relative L1 of the first block's residual.
    Replacement(
        "ApplyFBCacheOnModel",
        CACHE_DIT,
        (
            "object_to_patch",
            "residual_diff_threshold",
            "start",
            "end",
            "max_consecutive_cache_hits",
        ),
        {
            "residual_diff_threshold": "residual_diff_threshold",
            "max_continuous_cached_steps": "max_consecutive_cache_hits",
            "start_percent": "start",
            "end_percent": "end",
        },
    ),
    # ComfyUI-MagCache: its threshold adds up errors of magnitudes, which is another scale.
    Replacement(
        "MagCache",
        CACHE_DIT,
        (
            "model_type",
            "magcache_thresh",
            "retention_ratio",
            "magcache_K",
            "start_step",
            "end_step",
        ),
        {"max_continuous_cached_steps": "magcache_K", "start_percent": "retention_ratio"},
    ),
    # ComfyUI-KJNodes: its names of the coefficients are not ours; ours are found by the model.
    Replacement(
        "WanVideoTeaCacheKJ",
        TEA_CACHE,
        ("rel_l1_thresh", "start_percent", "end_percent", "cache_device", "coefficients"),
        {"rel_l1_thresh": "rel_l1_thresh", **TEA_CACHE_WINDOW},
    ),
    # ... and its names of Sage's kernels: here the hardware chooses, Sage's among the others, so
    # that the workflow also runs where Sage is not installed.
    Replacement(
        "PathchSageAttentionKJ",
        ATTENTION,
        ("sage_attention", "allow_compile"),
        fixed={"backend": "auto", "allow_low_precision": True},
    ),
    # ComfyUI-CacheDiT: it counts, and 0 stands for "as the preset of the model says".
    Replacement(
        "CacheDiT_Model_Optimizer",
        CACHE_DIT,
        ("enable", "model_type", "warmup_steps", "skip_interval", "print_summary"),
    ),
    # ComfyUI_Patches_ll.
    Replacement(
        "ApplyTeaCachePatch",
        TEA_CACHE,
        ("rel_l1_thresh", "cache_device", "wan_coefficients"),
        {"rel_l1_thresh": "rel_l1_thresh"},
    ),
    Replacement(
        "ApplyTeaCachePatchAdvanced",
        TEA_CACHE,
        ("rel_l1_thresh", "start_at", "end_at", "cache_device", "wan_coefficients"),
        {"rel_l1_thresh": "rel_l1_thresh", **PATCHES_WINDOW},
    ),
    Replacement(
        "ApplyFirstBlockCachePatch",
        CACHE_DIT,
        ("residual_diff_threshold",),
        {"residual_diff_threshold": "residual_diff_threshold"},
    ),
    Replacement(
        "ApplyFirstBlockCachePatchAdvanced",
        CACHE_DIT,
        ("residual_diff_threshold", "start_at", "end_at"),
        {"residual_diff_threshold": "residual_diff_threshold", **PATCHES_WINDOW},
    ),
    # Its nodes only work behind one of these, which prepares the model for them. Nothing needs
    # that here; a profiler that records nothing hands the model on as it is.
    *(
        Replacement(old, PROFILE, fixed={"evaluations": 0})
        for old in ("FluxForwardOverrider", "VideoForwardOverrider", "DitForwardOverrider")
    ),
)


async def register() -> None:
    """Tell the host what replaces what; a host without that mechanism is left alone."""
    if not hasattr(io, "NodeReplace") or not _has_server():
        return
    registry = getattr(ComfyAPI(), "node_replacement", None)
    if registry is None:
        return
    for entry in REPLACEMENTS:
        await registry.register(
            io.NodeReplace(
                new_node_id=entry.new,
                old_node_id=entry.old,
                old_widget_ids=list(entry.widgets),
                input_mapping=entry.input_mapping(),
                output_mapping=[{"old_idx": 0, "new_idx": 0}],
            )
        )


def _has_server() -> bool:
    """Whether the host runs as a server, which keeps the replacements; a script may load nodes."""
    server = sys.modules.get("server")
    return getattr(getattr(server, "PromptServer", None), "instance", None) is not None
