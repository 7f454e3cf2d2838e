"""Split Across GPUs on its node: one row a GPU, while it runs and at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import looks
import pytest

from dit_acceleration_pack.acceleration.parallel import RankReport, SplitReport

pytestmark = [pytest.mark.server, pytest.mark.browser]


def told(evaluations: int, outcome: str) -> dict[str, Any]:
    """A run as the server tells of it."""
    report = SplitReport(gpus=2, seconds=2.5 * evaluations, outcome=outcome)
    report.shared["tokens over 2"] = evaluations
    device, weights, sent = "NVIDIA GeForce RTX 4090", 22 * 2**30, 820 * 2**20
    for rank, waited in enumerate((0.31, 0.24)):
        held = f"1 of 1 rows, {256 - rank} text and {2048 - rank} image tokens"
        report.ranks.append(RankReport(rank, device, "", weights, held, 0, sent * evaluations, 115))
        report.ranks[rank].waited = waited * evaluations
    return {
        "technique": "Split Across GPUs",
        "steps": 20,
        "rows": [],
        "ranks": [asdict(rank) for rank in report.ranks],
        "residual_bytes": 0,
        "outcome": outcome,
        "sentence": report.shown(20).sentence() if outcome == "finished" else "",
    }


@pytest.fixture(scope="module", params=looks.MOSTLY_NODES_2)
def seen(request: pytest.FixtureRequest, on_the_demo: Callable[..., Any]) -> Any:
    """The panel after four evaluations and after all."""
    runs = {"running": told(4, "running"), "finished": told(20, "finished")}
    return on_the_demo("ranks", request.param, **runs)


def test_each_gpu_has_a_row(seen: Any) -> None:
    assert seen["running"]["table"] == [
        ["GPU", "sent", "in exchanges"],
        ["0 · RTX 4090", "3.20 GiB", "1.2 s"],
        ["1 of 1 rows, 256 text and 2048 image tokens"],
        ["1 · RTX 4090", "3.20 GiB", "0.96 s"],
        ["1 of 1 rows, 255 text and 2047 image tokens"],
    ]
    assert seen["finished"]["table"][1][1:] == ["16.0 GiB", "6.2 s"]


def test_the_end_is_one_sentence_and_all_of_it_can_be_read(seen: Any) -> None:
    assert seen["running"]["sentence"] == ""
    assert seen["finished"]["sentence"].startswith("20 evaluations on 2 GPUs in 50.0 s (20 × ")
    for state in ("running", "finished"):
        assert "20 steps" in seen[state]["text"] and "RTX 4090" in seen[state]["text"]
        assert seen[state]["hidden"] == 0 and seen[state]["textContrast"] > 4.5


def test_the_page_logs_no_error(seen: Any) -> None:
    assert seen["errors"] == []
