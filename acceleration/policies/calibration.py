"""Fitting TeaCache to one checkpoint: from input change to output change.

A calibration run computes everything and records, from one evaluation of a branch to the next, the
relative L1 change of TeaCache's input and of the hidden state after the last block. A polynomial
through those points is what ``TeaCache`` sums up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ..errors import AccelerationError
from ..families import TeaCacheFit

MIN_POINTS = 6
MAX_DEGREE = 4
LEAST_EXPLAINED = 0.5
"""Share of the variance (R²) that a fit must explain to be of use.

Measured on the two demo models, cfg 1 and 3, three prompts of one and two of the other. Samplers
that add no noise, 12 to 50 steps, seven schedulers: FLUX explains 0.74 to 0.97, Wan 0.51 to 0.97.
Noise: Wan with ancestral and SDE samplers 0.06 to 0.48, tiles that take turns in one branch 0.05
to 0.45, a Wan run of 8 steps 0.09 to 0.42.
"""
MOST_CHANGE = 0.7
"""Median relative L1 change of the output, from which on evaluations have nothing in common.

A fit through such changes can explain much, and yet there is nothing that could be reused. On the
same runs: without added noise at most 0.19, ancestral and SDE samplers 0.29 to 0.43 (FLUX, where a
fit explains up to 0.92 of it), tiles and ``lcm``, which draws new noise every step, 0.95 and more.
"""
SHARES = (0.3, 0.4, 0.5, 0.6)
"""Shares of skipped steps for which thresholds are suggested."""

RECOMMENDED_SHARE = 0.4


@dataclass(frozen=True)
class Calibration:
    """What is stored for a checkpoint.

    ``input_range`` is the range of input changes seen, ``r2`` the share of the variance that the
    polynomial explains, ``thresholds`` maps a share of skipped steps to the ``rel_l1_thresh`` that
    gave it, ``cache_dit_diffs`` holds the change of Cache-DiT's first-block residual from step to
    step, sorted.
    """

    identity: str
    family: str
    coefficients: tuple[float, ...]
    input_range: tuple[float, float]
    r2: float
    points: int
    thresholds: dict[str, float]
    cache_dit_diffs: tuple[float, ...] = ()
    settings: dict[str, Any] | None = None

    def with_cache_dit_diffs(self, diffs: Sequence[float]) -> Calibration:
        """The same with the changes of Cache-DiT's first-block residual, in any order."""
        return replace(self, cache_dit_diffs=tuple(sorted(diffs)))

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Calibration:
        """The inverse of ``as_dict``.

        Raises
        ------
        AccelerationError
            When the data is not of its form, or was fitted to noise.
        """
        try:
            low, high = data["input_range"]
            found = cls(
                identity=str(data["identity"]),
                family=str(data["family"]),
                coefficients=tuple(float(c) for c in data["coefficients"]),
                input_range=(float(low), float(high)),
                r2=float(data["r2"]),
                points=int(data["points"]),
                thresholds={str(k): float(v) for k, v in data["thresholds"].items()},
                cache_dit_diffs=tuple(float(d) for d in data.get("cache_dit_diffs", ())),
                settings=data.get("settings"),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise AccelerationError(
                f"the stored calibration is not readable ({error}): calibrate again."
            ) from None
        require_telling(found.r2)
        return found

    def fit(self) -> TeaCacheFit:
        """The calibration in the form in which TeaCache takes it."""
        return TeaCacheFit(
            "calibrated",
            self.coefficients,
            self.thresholds[f"{RECOMMENDED_SHARE:.0%}"],
            input_range=self.input_range,
        )

    def text(self) -> str:
        """What it means, for people."""
        lines = [
            f"TeaCache coefficients for this {self.family} checkpoint from {self.points} steps: "
            f"fit explains {self.r2:.1%} of the change, input changes from "
            f"{self.input_range[0]:.3g} to {self.input_range[1]:.3g}.",
        ]
        for percent, threshold in self.thresholds.items():
            lines.append(f"  rel_l1_thresh {threshold:.3g} skips about {percent} of the steps")
        for share in SHARES if self.cache_dit_diffs else ():
            place = min(int(share * len(self.cache_dit_diffs)), len(self.cache_dit_diffs) - 1)
            lines.append(
                f"  Cache-DiT: {share:.0%} of the steps change by less than R "
                f"{self.cache_dit_diffs[place]:.3g}"
            )
        return "\n".join(lines)


def fit_polynomial(
    inputs: Sequence[float], outputs: Sequence[float]
) -> tuple[tuple[float, ...], float]:
    """Least-squares polynomial, highest power first, and its R².

    The degree, 1 to 4, is the one with the smallest leave-one-out error, so that few points do not
    bend the curve.

    Raises
    ------
    AccelerationError
        With fewer than ``MIN_POINTS`` points.
    """
    x, y = np.asarray(inputs, dtype=np.float64), np.asarray(outputs, dtype=np.float64)
    if len(x) < MIN_POINTS:
        raise AccelerationError(
            f"only {len(x)} steps could be compared, at least {MIN_POINTS} are needed: calibrate "
            "with more steps."
        )
    degrees = range(1, min(MAX_DEGREE, len(x) - 2) + 1)
    best = min(degrees, key=lambda degree: _left_out_error(x, y, degree))
    coefficients = np.polyfit(x, y, best)
    rest = float(np.square(y - np.polyval(coefficients, x)).sum())
    spread = float(np.square(y - y.mean()).sum())
    r2 = 1 - rest / spread if spread > 0 else 0.0
    return tuple(float(c) for c in coefficients), r2


def _left_out_error(x: np.ndarray, y: np.ndarray, degree: int) -> float:
    """Sum of squared errors of leave-one-out predictions, by the diagonal of the hat matrix."""
    scale = np.abs(x).max() or 1.0
    design = np.vander(x / scale, degree + 1)
    hat = design @ np.linalg.pinv(design)
    left = (y - hat @ y) / np.maximum(1 - np.diag(hat), 1e-9)
    return float(np.square(left).sum())


def skipped_share(estimates: Sequence[float], threshold: float, limit: int = 4) -> float:
    """Share of evaluations that TeaCache's rule skips on a recorded series of estimates."""
    accumulated, row, skipped = 0.0, 0, 0
    for estimate in estimates:
        accumulated += max(estimate, 0.0)
        if accumulated < threshold and row < limit:
            skipped, row = skipped + 1, row + 1
        else:
            accumulated, row = 0.0, 0
    return skipped / max(len(estimates), 1)


def threshold_for(estimates: Sequence[float], share: float) -> float:
    """The smallest threshold that skips at least a share, or the largest useful one."""
    candidates = np.geomspace(max(min(estimates), 1e-4), max(sum(estimates), 1e-3), 200)
    for candidate in candidates:
        if skipped_share(estimates, float(candidate)) >= share:
            return float(candidate)
    return float(candidates[-1])


def require_telling(r2: float, outputs: Sequence[float] = ()) -> None:
    """Raise AccelerationError where a fit is one of noise.

    Parameters
    ----------
    r2
        Share of the variance that the fit explains.
    outputs
        Relative changes of the output that it was fitted to, where they are known.
    """
    change = float(np.median(outputs)) if len(outputs) else 0.0
    if r2 >= LEAST_EXPLAINED and change <= MOST_CHANGE:
        return
    if change > MOST_CHANGE:
        seen = f"the output changes by {change:.0%} from one evaluation to the next"
        limit = f"{MOST_CHANGE:.0%} at most"
    else:
        seen = f"the fit explains {r2:.1%} of the change of the output"
        limit = f"{LEAST_EXPLAINED:.0%} at least"
    raise AccelerationError(
        f"nothing can be calibrated here, as {seen} ({limit}): use a sampler that adds no noise, "
        "such as euler, more steps, and no node that cuts the picture into tiles; or leave "
        "TeaCache and use Apply Cache-DiT."
    )


def calibrate(
    identity: str,
    family: str,
    inputs: Sequence[float],
    outputs: Sequence[float],
    settings: dict[str, Any] | None = None,
) -> Calibration:
    """Make a calibration out of recorded changes (in the order in which they happened).

    Raises
    ------
    AccelerationError
        With too few points, and where the fit would be one of noise.
    """
    coefficients, r2 = fit_polynomial(inputs, outputs)
    require_telling(r2, outputs)
    fit = TeaCacheFit("calibrated", coefficients, 0.0)
    estimates = [fit.estimate(x) for x in inputs]
    return Calibration(
        identity=identity,
        family=family,
        coefficients=coefficients,
        input_range=(min(inputs), max(inputs)),
        r2=r2,
        points=len(inputs),
        thresholds={f"{share:.0%}": threshold_for(estimates, share) for share in SHARES},
        settings=settings,
    )
