"""How near accelerated pictures are to those of a full run.

PSNR and SSIM are scikit-image's, with its defaults (SSIM: uniform window of 7 pixels, channels
averaged), so that figures can be compared with those of other papers and tools. LPIPS is the
package of that name by its authors (arXiv 1801.03924), used where it and its weights are there.
"""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import AccelerationError
from .words import WORDS, coarse_psnr, words_of

NAME = "Compare Quality"
WINDOW = 7
"""scikit-image's default window of SSIM, in pixels."""

# torchvision's file with the network under LPIPS "alex"; the package would download it.
LPIPS_BACKBONE = "alexnet-owt-7be5be79.pth"

Tick = Callable[[int], None]
"""Called after every item with their number; may raise to stop."""

Metric = Callable[[torch.Tensor, torch.Tensor], float]


@dataclass(frozen=True)
class ItemQuality:
    """One picture or frame."""

    index: int
    psnr: float | None
    """In dB; None where both are identical, as it is infinite then."""
    ssim: float | None
    """None where the picture is too small for a window."""
    lpips: float | None
    identical: bool
    largest_difference: float
    words: str = ""
    """How near it is, for people; empty for latents, which nobody looks at."""


@dataclass
class Comparison:
    """All pictures or frames of a comparison, as plain data.

    Acceptance asks every single item: one spoilt picture must not hide in a good mean.
    """

    kind: str
    """What the items are: "image", "latent" or "latent frame"."""
    data_range: float
    items: list[ItemQuality]
    min_psnr: float = 0.0
    min_ssim: float = 0.0
    notes: list[str] = field(default_factory=list)

    def values(self, metric: str) -> list[float]:
        """A metric of the items that have it."""
        found = [getattr(item, metric) for item in self.items]
        return [value for value in found if value is not None]

    def mean(self, metric: str) -> float | None:
        """Mean over the items that have it; PSNR is averaged in dB."""
        values = self.values(metric)
        return statistics.fmean(values) if values else None

    @property
    def words(self) -> str:
        """How near the farthest item is; empty for latents."""
        return max((item.words for item in self.items), key=_farness, default="")

    @property
    def accepted(self) -> bool:
        """Whether every item reaches the minimums that are set."""
        psnr = all(v >= self.min_psnr for v in self.values("psnr"))
        ssim = all(v >= self.min_ssim for v in self.values("ssim"))
        return psnr and (ssim or not self.min_ssim)

    def sentence(self) -> str:
        """The means, the worst, and whether it is accepted."""
        count = len(self.items)
        identical = sum(item.identical for item in self.items)
        what = f"{count} {self.kind}{'s' if count > 1 else ''}"
        if identical == count:
            text = f"{what}: identical"
        else:
            parts = [
                _phrase("PSNR", self.values("psnr"), "{:.2f}", " dB", min),
                _phrase("SSIM", self.values("ssim"), "{:.4f}", "", min),
                _phrase("LPIPS", self.values("lpips"), "{:.4f}", "", max),
            ]
            text = f"{what}: {', '.join(part for part in parts if part)}"
            if identical:
                text += f", {identical} identical"
            if self.words:
                text = f"{self.words[0].upper()}{self.words[1:]}; {text}"
        limits = [f"PSNR {self.min_psnr:g} dB"] if self.min_psnr else []
        limits += [f"SSIM {self.min_ssim:g}"] if self.min_ssim else []
        if not limits:
            return f"{text}."
        verdict = "accepted" if self.accepted else "not accepted"
        return f"{text}; {verdict} (minimum {', '.join(limits)})."

    def text(self) -> str:
        """The sentence, a line an item, and notes."""
        lines = [self.sentence()]
        if len(self.items) > 1:
            lines += [self._line(item) for item in self.items]
        return "\n".join(lines + [f"Note: {note}." for note in self.notes])

    def _line(self, item: ItemQuality) -> str:
        if item.identical:
            return f"  {self.kind} {item.index + 1}: identical"
        parts = [f"PSNR {item.psnr:.2f} dB"]
        parts += [f"SSIM {item.ssim:.4f}"] if item.ssim is not None else []
        parts += [f"LPIPS {item.lpips:.4f}"] if item.lpips is not None else []
        return f"  {self.kind} {item.index + 1}: {', '.join(parts)}"

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready data."""
        return {
            "kind": self.kind,
            "count": len(self.items),
            "data_range": self.data_range,
            "psnr": self.mean("psnr"),
            "ssim": self.mean("ssim"),
            "lpips": self.mean("lpips"),
            "identical": all(item.identical for item in self.items),
            "words": self.words,
            "min_psnr": self.min_psnr,
            "min_ssim": self.min_ssim,
            "accepted": self.accepted,
            "sentence": self.sentence(),
            "notes": list(self.notes),
            "items": [asdict(item) for item in self.items],
        }


def _farness(words: str) -> int:
    return WORDS.index(words) if words in WORDS else -1


def _phrase(
    name: str, values: list[float], form: str, unit: str, worst: Callable[[list[float]], float]
) -> str:
    if not values:
        return ""
    text = f"{name} {form.format(statistics.fmean(values))}{unit}"
    return text if len(values) == 1 else f"{text} (worst {form.format(worst(values))})"


# -------------------------------------------------------------------- inputs


@dataclass(frozen=True)
class Pictures:
    """What is compared: ``[N, H, W, C]`` float32 on the CPU, what it is, and its value range."""

    values: torch.Tensor
    kind: str


def pictures_of(value: Any, name: str) -> Pictures:
    """Pictures of an IMAGE ``[B, H, W, C]`` or of a LATENT's samples ``[B, C, (T,) H, W]``.

    Frames of a video latent count as pictures, in the order of the batch.

    Raises
    ------
    AccelerationError
        When it is neither.
    """
    samples = value.get("samples") if isinstance(value, dict) else value
    if getattr(samples, "is_nested", False):
        raise AccelerationError(
            f"{name} is a LATENT of several parts (picture and sound): decode it and connect the "
            "IMAGE."
        )
    if not isinstance(samples, torch.Tensor) or samples.ndim not in (4, 5):
        shape = tuple(samples.shape) if isinstance(samples, torch.Tensor) else None
        told = f"shape {shape}" if shape else type(value).__name__
        raise AccelerationError(f"{name} must be an IMAGE or the LATENT of pictures, got {told}.")
    samples = samples.detach().float().cpu()
    if not isinstance(value, dict):
        return Pictures(samples, "image")
    if samples.ndim == 4:
        return Pictures(samples.movedim(1, -1), "latent")
    frames = samples.movedim(1, -1).flatten(0, 1)
    return Pictures(frames, "latent frame" if samples.shape[2] > 1 else "latent")


def _check_pair(baseline: Pictures, accelerated: Pictures) -> None:
    both = (baseline, accelerated)
    kinds = ["an IMAGE" if pictures.kind == "image" else "a LATENT" for pictures in both]
    if kinds[0] != kinds[1]:
        raise AccelerationError(
            f"baseline is {kinds[0]} and accelerated {kinds[1]}: connect two of a kind."
        )
    one, other = tuple(baseline.values.shape), tuple(accelerated.values.shape)
    if one != other:
        names = ("pictures", "height", "width", "channels")
        told = " and ".join(
            f"{name} {a} against {b}"
            for name, a, b in zip(names, one, other, strict=True)
            if a != b
        )
        raise AccelerationError(
            f"baseline and accelerated differ in size ({told}): compare runs of the same size and "
            "batch."
        )
    if 0 in one:
        raise AccelerationError(f"baseline holds no picture (shape {one}): connect a sampled one.")
    for name, pictures in (("baseline", baseline), ("accelerated", accelerated)):
        if not pictures.values.isfinite().all():
            raise AccelerationError(
                f"{name} has values that are not finite numbers (a black or broken picture): "
                "look at the run that made it."
            )


# -------------------------------------------------------------------- metrics


def compare(
    baseline: Any,
    accelerated: Any,
    min_psnr: float = 0.0,
    min_ssim: float = 0.0,
    tick: Tick = lambda _: None,
) -> tuple[Comparison, torch.Tensor]:
    """Compare two batches picture by picture.

    Returns the comparison and the differences ``[N, H, W]``, mean over the channels.

    The range of values is 1 for IMAGEs. For LATENTs it is the range of the baseline batch, as
    latents have no fixed one.

    Raises
    ------
    AccelerationError
        When the inputs cannot be compared, or scikit-image is missing.
    """
    one, other = pictures_of(baseline, "baseline"), pictures_of(accelerated, "accelerated")
    _check_pair(one, other)
    metrics = _metrics()
    is_image = one.kind == "image"
    data_range = 1.0 if is_image else float(one.values.max() - one.values.min()) or 1.0
    comparison = Comparison(one.kind, data_range, [], min_psnr, min_ssim)
    lpips = _lpips(comparison.notes) if is_image else None
    window = _window(one.values.shape[1:3], comparison.notes)
    for index in range(len(one.values)):
        a, b = one.values[index].numpy(), other.values[index].numpy()
        identical = bool(np.array_equal(a, b))
        psnr = None if identical else _psnr(metrics, a, b, data_range)
        ssim = _ssim(metrics, a, b, data_range, window) if window else None
        perceived = lpips(one.values[index], other.values[index]) if lpips else None
        largest = float(np.abs(a - b).max())
        coarse = coarse_psnr(one.values[index], other.values[index])
        words = words_of(identical, psnr, ssim, coarse) if is_image else ""
        item = ItemQuality(index, psnr, ssim, perceived, identical, largest, words)
        comparison.items.append(item)
        tick(index + 1)
    if window is None and min_ssim:
        raise AccelerationError(
            f"min_ssim is {min_ssim:g}, but these pictures are too small for SSIM: set it to 0."
        )
    return comparison, (one.values - other.values).abs().mean(-1)


def _metrics() -> Any:
    try:
        return importlib.import_module("skimage.metrics")
    except ImportError as error:
        raise AccelerationError(
            f"{NAME} needs the package 'scikit-image', which is not installed: run "
            "`python -m pip install scikit-image` with ComfyUI's Python and restart."
        ) from error


def _psnr(metrics: Any, a: Any, b: Any, data_range: float) -> float:
    return float(metrics.peak_signal_noise_ratio(a, b, data_range=data_range))


def _ssim(metrics: Any, a: Any, b: Any, data_range: float, window: int) -> float:
    return float(
        metrics.structural_similarity(a, b, win_size=window, channel_axis=-1, data_range=data_range)
    )


def _window(size: Sequence[int], notes: list[str]) -> int | None:
    """Side of SSIM's window: the usual one, or the largest odd one that fits."""
    smallest = min(size)
    if smallest >= WINDOW:
        return WINDOW
    if smallest < 3:
        notes.append(f"SSIM needs at least 3 pixels a side, these have {smallest}")
        return None
    window = smallest - 1 + smallest % 2
    notes.append(f"SSIM with a window of {window} pixels instead of {WINDOW}, as the side is short")
    return window


def _lpips(notes: list[str]) -> Metric | None:
    """LPIPS of two pictures ``[H, W, C]`` in 0..1; None where it cannot run without a download."""
    try:
        package = importlib.import_module("lpips")
    except ImportError:
        return None
    if not (Path(torch.hub.get_dir()) / "checkpoints" / LPIPS_BACKBONE).exists():
        notes.append(
            f"lpips is installed, but its weights ({LPIPS_BACKBONE}) are not on this machine and "
            'nothing is downloaded here: to get them, run `python -c "import lpips; '
            "lpips.LPIPS(net='alex')\"` once"
        )
        return None
    network = package.LPIPS(net="alex", verbose=False).eval()

    def measure(a: torch.Tensor, b: torch.Tensor) -> float:
        pair = [p[..., :3].movedim(-1, 0)[None] * 2 - 1 for p in (a, b)]
        with torch.inference_mode():
            return float(network(*pair))

    return measure
