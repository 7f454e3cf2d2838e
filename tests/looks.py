"""How the page may look: the renderer of its nodes (True is Nodes 2.0) and its theme."""

from __future__ import annotations

import pytest

CANVAS = pytest.param((False, "dark"), id="canvas")
NODES_2 = pytest.param((True, "light"), id="nodes 2.0")
# For scenarios in which the renderer makes little difference.
MOSTLY_CANVAS = [CANVAS, pytest.param((True, "light"), id="nodes 2.0", marks=pytest.mark.whole)]
# The quick check takes each renderer and each theme once.
ALL = [
    CANVAS,
    NODES_2,
    pytest.param((False, "light"), id="canvas, light", marks=pytest.mark.whole),
    pytest.param((True, "dark"), id="nodes 2.0, dark", marks=pytest.mark.whole),
]
