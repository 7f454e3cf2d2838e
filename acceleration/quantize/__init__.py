"""Quantization: formats, what they lose, and which layer gets which, as plain functions."""

from .formats import FORMATS, Format
from .layers import Layer, kept_for, linear_layers, why_kept
from .measure import Choice, Seen, best, output, relative, rounded_weight
from .plan import MOST_ERROR, Plan, predicted, saved
from .report import LayerReport, QuantizeReport
from .settings import QuantizeSettings

__all__ = [
    "FORMATS",
    "MOST_ERROR",
    "Choice",
    "Format",
    "Layer",
    "LayerReport",
    "Plan",
    "QuantizeReport",
    "QuantizeSettings",
    "Seen",
    "best",
    "kept_for",
    "linear_layers",
    "output",
    "predicted",
    "relative",
    "rounded_weight",
    "saved",
    "why_kept",
]
