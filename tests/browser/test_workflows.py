"""Every example workflow opens in the real front end: no missing node, no error in the console."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from comfyui_environment import ROOT, Environment

pytestmark = [pytest.mark.server, pytest.mark.browser]

EXAMPLES = sorted(path.name for path in (ROOT / "workflows").glob("*.json"))


@pytest.fixture(scope="module")
def opened(scenario: Callable[..., Any], environment: Environment) -> dict[str, Any]:
    """What opening each workflow showed, by its name; all in one page, as that is much faster."""
    pack = environment.packs[0]
    found = scenario("open_workflows", paths=[f"{pack}/{name}" for name in EXAMPLES])
    return {path.partition("/")[2]: result for path, result in found.items()}


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_opens_whole(opened: dict[str, Any], name: str) -> None:
    assert opened[name]["missing"] == []
    assert opened[name]["errors"] == []
    assert opened[name]["count"] > 5


@pytest.mark.whole
def test_the_demo_is_found_among_the_templates(scenario: Callable[..., Any]) -> None:
    seen = scenario("templates", name="dit_acceleration_demo", type="AccelApplyCacheDiT")
    assert seen == {"count": 1, "errors": []}
