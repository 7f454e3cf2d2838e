"""Which sampler a report is of: the nearest before the node in the graph."""

from __future__ import annotations

from typing import Any

from dit_acceleration_pack.acceleration.host import nearest_sampler

GRAPH: dict[str, Any] = {
    "1": {"inputs": {"name": "model.safetensors"}},
    "2": {"inputs": {"model": ["1", 0], "latent": ["9", 0]}},
    "3": {"inputs": {"model": ["1", 0], "latent": ["2", 0]}},
    "4": {"inputs": {"samples": ["2", 0]}},
    "5": {"inputs": {"samples": ["3", 0]}},
    "6": {"inputs": {"model": ["1", 0], "after": ["4", 0]}},
    "7": {"inputs": {"model": ["1", 0], "after": ["5", 0]}},
    "9": {"inputs": {"back": ["9", 0]}},
}
SAMPLERS = {"2", "3"}


def test_each_report_is_of_its_own_sampler() -> None:
    assert nearest_sampler(GRAPH, "6", "after", SAMPLERS) == "2"
    assert nearest_sampler(GRAPH, "7", "after", SAMPLERS) == "3"
    assert nearest_sampler(GRAPH, "7", "after", {"2"}) == "2", "what went before counts as well"


def test_without_a_graph_or_a_sampler_nothing_is_known() -> None:
    assert nearest_sampler(None, "6", "after", SAMPLERS) is None
    assert nearest_sampler(GRAPH, "6", "after", {"8"}) is None
    assert nearest_sampler(GRAPH, "2", "latent", SAMPLERS) is None
