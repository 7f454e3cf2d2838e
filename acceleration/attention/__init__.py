"""Attention backends: what each can take, whether it works here, which one serves a call.

Knows torch and, when they are asked for, the packages with the kernels. ``backends/`` has one small
file for each, ``router`` decides call by call, ``race`` is the automatic choice.
"""

from __future__ import annotations

from .registry import (
    BACKENDS,
    CHOICES,
    FORMER,
    Availability,
    available_backends,
    class_of,
    describe_choices,
)
from .report import AttentionReport
from .router import AttentionRun
from .settings import AttentionSettings

__all__ = [
    "BACKENDS",
    "CHOICES",
    "FORMER",
    "AttentionReport",
    "AttentionRun",
    "AttentionSettings",
    "Availability",
    "available_backends",
    "class_of",
    "describe_choices",
]
