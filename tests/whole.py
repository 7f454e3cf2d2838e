"""What only the whole check runs, ``tests/run.py --all``: many prompts and further cases."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def one_case_each(items: Iterable[Any]) -> tuple[list[Any], list[Any]]:
    """The first case of every test, and all others; what counts is ``nodeid``."""
    cases: dict[str, list[Any]] = {}
    for item in items:
        cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    return [some[0] for some in cases.values()], [
        one for some in cases.values() for one in some[1:]
    ]


def first(values: Iterable[Any]) -> list[Any]:
    """Values of which the quick check takes the first."""
    one, *others = values
    return [one, *whole(others)]


def whole(values: Iterable[Any]) -> list[Any]:
    """Values of a parametrized test that the quick check leaves out; a tuple is several values."""
    marked = []
    for value in values:
        parts = value if isinstance(value, tuple) else (value,)
        marked.append(pytest.param(*parts, marks=pytest.mark.whole))
    return marked
