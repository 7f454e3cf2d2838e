"""How the page may look: the renderer of its nodes (True is Nodes 2.0) and its theme."""

from __future__ import annotations

import pytest

CANVAS = pytest.param((False, "dark"), id="canvas")
NODES_2 = pytest.param((True, "light"), id="nodes 2.0")
# The quick check takes one look a scenario, and each renderer in some of them.
MOSTLY_CANVAS = [CANVAS, pytest.param((True, "light"), id="nodes 2.0", marks=pytest.mark.whole)]
MOSTLY_NODES_2 = [NODES_2, pytest.param((False, "dark"), id="canvas", marks=pytest.mark.whole)]
ALL = [
    *MOSTLY_CANVAS,
    pytest.param((False, "light"), id="canvas, light", marks=pytest.mark.whole),
    pytest.param((True, "dark"), id="nodes 2.0, dark", marks=pytest.mark.whole),
]
