"""One sampling run that begins with small latents: which calls of the network, and how.

Only the network's call is made small: latent, sigma and conditions go in small, the result comes
back embedded in the full size. The sampler, its masks and its previews, and whatever guidance makes
of the results, only ever meet the full size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..failures import log_failure
from ..families import spectra
from ..families.base import Spectrum
from ..progressive import (
    FLOW,
    VARIANCE,
    Corner,
    Kind,
    PowerLaw,
    Predictions,
    ProgressiveReport,
    ProgressiveSettings,
    Switches,
    choose,
    switches,
)
from ..progressive.report import NAME
from ..report import EvaluationRecord
from ..sampling.listener import Listener
from ..sampling.records import Records
from ..schedule import Schedule, Stage
from ..timing import Span
from .levers import argument
from .model import is_for_the_host, sampler_name, structure_of
from .small_conditions import Conds, matched_ranges, small_conditions
from .spectra import described_spectrum, stored_spectrum
from .stages import STAGE_KEY, Here

HANDLER = "context_handler"
"""The host's option for who evaluates a batch of conditions in pieces of its own."""

ABOVE, BELOW, GIVEN_UP = "above the switch", "below the switch", "smaller size not taken"
"""Why a prediction has its size."""

OTHERS_CONDS = "another node evaluates conditions of its own making, which went at full size"


class ProgressiveRun:
    """One sampling run: which evaluations are small, and what they need.

    Parameters
    ----------
    guider
        The host's, whose conditions have not been prepared yet.
    args, kwargs
        Of the host's OUTER_SAMPLE.
    listener
        Is told of every prediction and of the end.
    """

    def __init__(
        self,
        settings: ProgressiveSettings,
        guider: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        report: ProgressiveReport,
        listener: Listener | None = None,
    ) -> None:
        self.report = report
        self._noise: torch.Tensor = argument(args, kwargs, 0, "noise")
        self._latent: torch.Tensor = argument(args, kwargs, 1, "latent_image")
        self._mask: torch.Tensor | None = argument(args, kwargs, 4, "denoise_mask")
        self._seed = argument(args, kwargs, 7, "seed")
        sigmas = [float(s) for s in argument(args, kwargs, 3, "sigmas", ())]
        self._schedule = Schedule.from_sigmas(sigmas)
        sampler = sampler_name(argument(args, kwargs, 2, "sampler"))
        self._seen = Predictions(NAME, sampler=sampler, steps=self._schedule.steps, of=report)
        self._records = Records(self._seen, listener, lambda _: self._seen.add_up())
        self._position: float | None = None
        self._corners: dict[int, Corner] = {}
        self._conds: dict[int, Conds] = {}
        self._stages: dict[int, Stage] = {}
        self._switches: Switches | None = None
        self.gain = 1.0
        """How many times faster this run is than at full size, by the sizes of its latents."""
        self._given: Conds = {}
        patcher = guider.model_patcher
        sampling = patcher.get_model_object("model_sampling")
        shapes = argument(args, kwargs, 8, "latent_shapes") or [self._noise.shape]
        kind = kind_of(sampling)
        self._kind = kind or FLOW
        why = self._why_not(patcher, kind, shapes)
        if why is not None:
            report.refuse(why)
        elif len(sigmas) > 1:
            self._plan(settings, patcher, sigmas)
            self._seen.switch = report.switch
            self._given = {name: [dict(one) for one in some] for name, some in guider.conds.items()}

    def __deepcopy__(self, memo: dict[int, Any]) -> ProgressiveRun:
        # The run travels in transformer_options, which other packs copy.
        return self

    def _why_not(self, patcher: Any, kind: Kind | None, shapes: Any) -> str | None:
        """Why this run must go at full size, or None."""
        structure = structure_of(patcher)
        if structure is not None and structure.family.one_size:
            return structure.family.one_size
        if kind is None:
            return (
                "this model does not mix picture and noise in a way known here, so there is no "
                "sigma that fits a smaller latent"
            )
        if len(shapes) > 1:
            return (
                f"this latent holds {len(shapes)} parts, such as pictures and sound, which have no "
                "common height and width"
            )
        if self._noise.ndim not in (4, 5):
            return f"a latent of {self._noise.ndim} axes has no height and width to make smaller"
        if self._mask is not None and _keeps_clean_parts(patcher.model):
            return (
                "with a noise mask this model is given clean parts inside the noisy latent, and "
                "these would be taken for noise"
            )
        return None

    def _plan(self, settings: ProgressiveSettings, patcher: Any, sigmas: list[float]) -> None:
        is_video = self._noise.ndim == 5 and self._noise.shape[2] > 1
        spectrum = stored_spectrum(patcher, self._noise.shape) or described_spectrum(patcher)
        if spectrum is None:
            spectrum = spectra.VIDEOS if is_video else spectra.PICTURES
        law, source = _law(settings, spectrum)
        mode, share, delta = settings.goal(is_video)
        size = (self._noise.shape[-2], self._noise.shape[-1])
        found = switches(size, settings.levels, spectrum.packing, law, share, delta)
        if not found.shares:
            self.report.refuse(
                f"a latent of {found.named(0)} is too small to be halved: its sides must be at "
                "least 16 values long"
            )
            return
        shares = [self._kind.share(sigma) for sigma in sigmas]
        # Runs of the first of two experts and of the first of two samplers end within the noise.
        ends = sigmas[-1] <= float(patcher.get_model_object("model_sampling").sigma_min)
        chosen = choose(found, shares[:-1], ends, settings.min_full_steps)
        if not any(map(chosen.level, shares[:-1])):
            last = self._kind.sigma(chosen.shares[0]) if chosen.shares[0] < 1 else sigmas[0]
            self.report.refuse(
                f"none of its {len(sigmas) - 1} steps begins above the switch at sigma "
                f"{last:.3g} ({chosen.why})"
            )
            return
        self._switches, self._stages = chosen, chosen.stages(shares[:-1])
        self.gain = chosen.gain(shares[:-1])
        for level in range(1, len(chosen.sizes)):
            self._corners[level] = Corner(size, chosen.sizes[level], spectrum.packing)
        self.report.mode = mode
        last = self._kind.sigma(chosen.shares[0]) if chosen.shares[0] < 1 else sigmas[0]
        self.report.switch = f"full size from sigma {last:.3g} on ({chosen.why})"
        if share is None:
            self.report.switch += f"; spectrum: {source}"

    @property
    def idle(self) -> bool:
        """Whether nothing of this run is small from the beginning."""
        return not self._stages

    @property
    def given_up(self) -> bool:
        """Whether the rest of this run goes at full size."""
        return self._switches is None

    def predict(
        self,
        guider: Any,
        sigma: torch.Tensor,
        options: dict[str, Any],
        execute: Callable[[dict[str, Any]], Any],
    ) -> Any:
        """One prediction of the guider, with small calls of the network where there is noise.

        Parameters
        ----------
        sigma
            ``[B]``.
        options
            The guider's ``model_options``.
        execute
            Predicts with the given options.
        """
        self._records.begin()
        span, here, level = Span(sigma.device), float(sigma.flatten()[0]), 0
        if self._switches is not None:
            level = self._switches.level(self._kind.share(here))
            options = {
                **options,
                "transformer_options": {
                    **options.get("transformer_options", {}),
                    STAGE_KEY: Here(self._stages[level], sigma),
                },
            }
        if level:
            options[HANDLER] = SmallCalls(self, guider, level, options.get(HANDLER))
        output = execute(options)
        try:
            self._add(level, here, span)
        except Exception as error:
            # The picture does not depend on who watches it.
            log_failure(error)
        return output

    def _add(self, level: int, sigma: float, span: Span) -> None:
        """Note a prediction that is over; it went at full size where the level was given up."""
        level, reason = (0, GIVEN_UP) if self.given_up else (level, ABOVE if level else BELOW)
        self._position = at = self._schedule.locate(sigma, self._position)
        self._records.add(
            EvaluationRecord(
                self._schedule.step_of(at),
                at,
                sigma,
                "prediction",
                skipped=False,
                reason=reason,
                diff=None,
                seconds=0.0,
                size=self._stages[level].name,
                full=self._stages[level].full,
            ),
            span.stop(),
        )

    def conditions(self, guider: Any, level: int) -> Conds:
        """The guider's conditions at a level, made when first asked for."""
        if level not in self._conds:
            model, device = guider.inner_model, guider.model_patcher.load_device
            noise = self._noise.to(device, torch.float32)
            latent = self._latent.to(device, torch.float32)
            if torch.count_nonzero(latent) > 0:
                latent = model.process_latent_in(latent)
            mask = None if self._mask is None else self._mask.to(device)
            self._conds[level] = small_conditions(
                model, self._given, self._corners[level], level, self._kind, noise, latent, mask,
                seed=self._seed,
            )  # fmt: skip
        return self._conds[level]

    def small(
        self, guider: Any, level: int, model: Any, conds: Any, x: Any, sigma: Any, options: Any
    ) -> list[torch.Tensor] | None:
        """The results of conditions ``[B, C, …, H, W]``, evaluated small; None where they cannot.

        Parameters
        ----------
        conds
            Lists of the guider, in any choice and order; None stands for one left out.
        options
            ``model_options`` without what makes calls small.
        """
        import comfy.samplers

        corner, kind = self._corners[level], self._kind
        if tuple(x.shape[-2:]) != corner.size:
            return None
        ready = self.conditions(guider, level)
        names = [next((n for n, own in guider.conds.items() if own is c), None) for c in conds]
        if any(name is None and cond is not None for name, cond in zip(names, conds, strict=True)):
            self.report.notice(OTHERS_CONDS)
            return None
        chosen = [None if name is None else ready[name] for name in names]
        small_sigma = kind.matched(sigma, corner.ratio)
        told = dict(options["transformer_options"])
        if "sample_sigmas" in told:
            told["sample_sigmas"] = kind.matched(told["sample_sigmas"], corner.ratio)
        scale = (small_sigma / sigma).reshape(-1, *[1] * (x.ndim - 1))
        with matched_ranges(ready, lambda value: kind.matched(value, corner.ratio)):
            found = comfy.samplers.calc_cond_batch(
                model, chosen, corner.down(x) * scale, small_sigma,
                {**options, "transformer_options": told},
            )  # fmt: skip
        return [corner.up(one) * corner.ratio for one in found]

    def give_up(self, error: Exception) -> None:
        """The rest of the run goes at full size, as the network does not take a small latent."""
        log_failure(error)
        message = next(iter(str(error).splitlines()), "no message")[:120]
        self.report.refuse(
            f"this model or a node on it does not take the smaller latent "
            f"({type(error).__name__}: {message})"
        )
        self._switches = None
        self._free()

    def _free(self) -> None:
        self._conds.clear()
        self._given.clear()

    def close(self, finished: bool) -> ProgressiveReport:
        """Free everything; the run's report is final."""
        self._free()
        report, seen = self.report, self._seen
        report.outcome = seen.outcome = "finished" if finished else "interrupted"
        self._records.end()
        # The coarsest first, also where a schedule rises again.
        sizes = [self._stages[level].name for level in sorted(self._stages, reverse=True)]
        report.stages = sorted(seen.stages(), key=lambda stage: sizes.index(stage.size))
        self._records.tell_end()
        return report


class SmallCalls:
    """Stands where the host asks who evaluates conditions, for the length of one prediction.

    It is asked before everything else that does (windows over the frames of a video, several
    devices), by every guider, and by guidance that evaluates once more.
    """

    def __init__(self, run: ProgressiveRun, guider: Any, level: int, behind: Any) -> None:
        self._run, self._guider, self._level, self._behind = run, guider, level, behind

    def __deepcopy__(self, memo: dict[int, Any]) -> SmallCalls:
        return self

    def should_use_context(self, *_: Any) -> bool:
        """Every time."""
        return True

    def execute(
        self, calc_cond_batch: Any, model: Any, conds: Any, x_in: Any, timestep: Any, options: Any
    ) -> Any:
        """Results of all conditions, ``[B, C, …, H, W]`` each."""
        import comfy.samplers

        plain = {name: value for name, value in options.items() if name != HANDLER}
        if self._behind is not None:
            plain[HANDLER] = self._behind
        found = None
        if not self._run.given_up:
            try:
                found = self._run.small(
                    self._guider, self._level, model, conds, x_in, timestep, plain
                )
            except Exception as error:
                if is_for_the_host(error):
                    raise
                self._run.give_up(error)
        if found is None:
            found = comfy.samplers.calc_cond_batch(model, conds, x_in, timestep, plain)
        return found


def kind_of(sampling: Any) -> Kind | None:
    """How a model mixes picture and noise, or None where that is not known."""
    import comfy.model_sampling as known

    def has(*names: str) -> bool:
        classes = tuple(c for name in names if (c := getattr(known, name, None)) is not None)
        return isinstance(sampling, classes)

    if has("IMG_TO_IMG", "IMG_TO_IMG_FLOW"):
        return None
    if has("CONST"):
        return FLOW
    return VARIANCE if has("EPS", "COSMOS_RFLOW") else None


def _keeps_clean_parts(model: Any) -> bool:
    """Whether a model has its own way of filling in what a noise mask protects."""
    from comfy.model_base import BaseModel

    return type(model).scale_latent_inpaint is not BaseModel.scale_latent_inpaint


def _law(settings: ProgressiveSettings, spectrum: Spectrum) -> tuple[PowerLaw, str]:
    if settings.spectrum == "custom":
        law = PowerLaw(settings.spectrum_A, settings.spectrum_beta)
        return law, f"A {law.A:g}, beta {law.beta:g}, as set"
    return PowerLaw(spectrum.A, spectrum.beta), spectrum.source
