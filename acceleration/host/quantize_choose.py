"""What a MODEL's layers become: probing it, measuring formats, keeping what hurts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import AccelerationError
from ..quantize import (
    FORMATS,
    MOST_ERROR,
    Choice,
    Layer,
    LayerReport,
    Plan,
    QuantizeReport,
    QuantizeSettings,
    best,
    kept_for,
    linear_layers,
    predicted,
    saved,
    why_kept,
)
from ..quantize.formats import INT8
from ..quantize.plan import AUTO_ERROR, mixed, smallest_within, within_error
from ..quantize.report import NAME
from ..quantize.settings import AUTO, MIXED
from .model import is_for_the_host, network_of, progress, structure_of
from .quantize_kernels import faster_formats, kernels_of
from .quantize_probe import Probe, loaded, plain, probe, replaced
from .quantize_twin import Recipe, make_twin, weight_of, with_twin

log = logging.getLogger("dit_acceleration")

MOST_BACK = 0.25
"""Share of the layers beyond which auto tries another format instead of sending more back."""
ROUNDS = 4
"""How often layers may go back before the model is left alone."""


@dataclass(frozen=True)
class Wish:
    """What was asked for, and with what it is measured."""

    settings: QuantizeSettings
    positive: Any = None
    latent: Any = None
    emulate: bool = False
    """Whether activations are rounded where the device has no kernel: slower, and only good for
    seeing what a format would lose elsewhere."""


class Chooser:
    """Makes the quantized clone of one MODEL."""

    def __init__(self, model: Any, wish: Wish, report: QuantizeReport) -> None:
        self.model, self.wish, self.report = model, wish, report
        self.settings = wish.settings
        self.structure = structure_of(model)
        self.layers = linear_layers(network_of(model), self.structure)
        self.kernels = kernels_of(model.load_device)
        self.probe: Probe | None = None
        self._errors: dict[tuple[str, str], Choice] = {}

    def made(self) -> Any:
        """The clone, or None where the report says why there is none."""
        report = self.report
        report.bytes_before = report.bytes_after = self._all_bytes()
        if not self.layers:
            raise AccelerationError(
                f"{NAME}: this model has no linear layers in blocks, so there is nothing to "
                "quantize; leave this node out."
            )
        precisions = self._precisions()
        if not precisions:
            return None
        self._look()
        for precision in precisions:
            clone = self._with(precision)
            if clone is not None:
                report.left_alone = ""
                return clone
        return None

    def _precisions(self) -> list[str]:
        """What to try, in this order; what auto finds faster than the model as it is."""
        wanted, report = self.settings.precision, self.report
        if wanted != AUTO:
            return [wanted]
        report.race, found = faster_formats(self.model, self.layers, self.kernels)
        if not found:
            report.left_alone = "no format is faster here"
        if self.settings.memory_gb and report.bytes_before > self.settings.memory_gb * 1e9:
            return [*found, MIXED]
        return found

    def _all_bytes(self) -> int:
        return sum(p.nbytes for p in network_of(self.model).parameters())

    def _look(self) -> None:
        """Probe the model; without a probe nothing is smoothed and nothing measured."""
        paths = [layer.path for layer in self.layers]
        try:
            self.probe = probe(self.model, paths, self.wish.positive, self.wish.latent)
        except AccelerationError:
            raise
        except Exception as error:
            if is_for_the_host(error):
                raise
            log.info("%s could not probe the model: %s", NAME, error, exc_info=True)
            self.report.notice(
                f"a few steps could not be sampled to measure with ({str(error)[:120]}), so "
                "nothing is smoothed and no error known: connect a prompt to positive, and a latent"
            )
            return
        self.report.probe, self.report.states = self.probe.what, len(self.probe.calls)

    def _layers_for(self, formats: Sequence[str]) -> list[Layer]:
        """Layers that may become one of these formats; the report notes the others."""
        found, self.report.kept = [], {}
        for layer in self.layers:
            family = [p for name in formats for p in kept_for(self.structure, name)]
            why = why_kept(layer, [*self.settings.patterns, *family])
            if not why and self.probe is not None and layer.path not in self.probe.seen:
                why = "it was not called as a layer"
            if why:
                self.report.kept[layer.path] = why
            else:
                found.append(layer)
        return found

    def _choice(self, layer: Layer, name: str) -> Choice:
        """A layer in a format, measured once."""
        key = (layer.path, name)
        if key not in self._errors:
            weight = weight_of(self.model, layer.path, True)
            seen = None if self.probe is None else self.probe.seen.get(layer.path)
            self._errors[key] = best(layer, name, weight, seen, self._rounds(name))
        return self._errors[key]

    def _rounds(self, name: str) -> bool:
        """Whether a format's activations are rounded, too."""
        return self.wish.emulate or name in self.kernels

    def _options(self, formats: Sequence[str]) -> dict[str, list[Choice]]:
        """By path, what a layer may become, with its errors as far as they are measured."""
        layers = self._layers_for(formats)
        options = {
            layer.path: [
                self._choice(layer, name)
                for name in dict.fromkeys(layer.format_for(wanted) for wanted in formats)
            ]
            for layer in layers
        }
        if self.settings.measure == "off" or self.probe is None:
            return options
        return self._measured(options)

    def _measured(self, options: dict[str, list[Choice]]) -> dict[str, list[Choice]]:
        """Each layer alone, in its coarsest format; others in proportion to their own error."""
        told = progress(len(options))
        found = {}
        assert self.probe is not None
        with loaded(plain(self.model)) as model:
            rows = self.probe.joined(model.apply_model)
            for count, (path, choices) in enumerate(options.items()):
                coarsest = max(choices, key=lambda choice: choice.local)
                weight = weight_of(self.model, path, True)
                acts = self._rounds(coarsest.format)
                with replaced(model.diffusion_model, coarsest, weight, acts):
                    error = rows.error(model.apply_model)
                share = error / coarsest.local if coarsest.local else 0.0
                found[path] = [replace(c, error=share * c.local) for c in choices]
                told(count + 1)
        return found

    def _with(self, precision: str) -> Any:
        formats = [precision] if precision != MIXED else self._mixable()
        options = self._options(formats)
        if not options:
            self.report.left_alone = "no layer of its blocks may be quantized"
            return None
        if precision == MIXED:
            plan = self._mixed(options)
        else:
            plan = {path: choices[0] for path, choices in options.items()}
        self.report.precision = precision
        return self._as_planned(plan)

    def _mixable(self) -> list[str]:
        """Formats that mixed chooses among: those with kernels; where only int8 has one, all."""
        found = [name for name in FORMATS if name in self.kernels]
        return found if found not in ([], [INT8]) else list(FORMATS)

    def _mixed(self, options: dict[str, list[Choice]]) -> Plan:
        most = self.settings.memory_gb * 1e9
        if not most:
            return smallest_within(options, MOST_ERROR)
        total = self._all_bytes()
        plan = mixed(options, lambda found: total - saved(found) <= most)
        if total - saved(plan) > most:
            self.report.notice(
                f"memory_gb is {self.settings.memory_gb:g}, and {(total - saved(plan)) / 1e9:.2f} "
                "GB is the smallest that this model becomes"
            )
        return plan

    def _as_planned(self, plan: Plan) -> Any:
        """The clone of a plan; layers go back while the whole model changes too much."""
        most = AUTO_ERROR if self.settings.precision == AUTO else MOST_ERROR
        first = len(plan)
        self.report.went_back = []
        least = (1 - MOST_BACK) * first if self.settings.precision == AUTO else 1
        for _ in range(ROUNDS):
            if len(plan) < least:
                break
            clone = self._clone(plan)
            try:
                error = self._error_of(clone)
            except Exception as problem:
                if is_for_the_host(problem):
                    raise
                log.info("%s could not run the quantized model", NAME, exc_info=True)
                self.report.left_alone = (
                    f"its quantized copy does not run ({str(problem)[:120]}); other nodes may have "
                    "changed its network"
                )
                return None
            if error is None or error <= most:
                self._tell(plan, error)
                return clone
            plan, gone = within_error(plan, error, most)
            self.report.went_back += gone
            self.report.kept |= dict.fromkeys(gone, "the model changed too much")
        self.report.left_alone = (
            f"it changed by more than {100 * most:g} % in every format that was tried, also with "
            f"{len(self.report.went_back)} of {first} layers as they were"
        )
        return None

    def _clone(self, plan: Plan) -> Any:
        told: Callable[[int], None] = progress(len(plan))
        unloaded(self.model)
        exact = frozenset(name for name in FORMATS if not self._rounds(name))
        recipe = Recipe(plan, self.settings.fold_loras, exact)
        return with_twin(self.model, make_twin(self.model, recipe, told), recipe)

    def _error_of(self, clone: Any) -> float | None:
        if self.settings.measure == "off" or self.probe is None:
            return None
        with loaded(plain(clone)) as model:
            return self.probe.error(model.apply_model)

    def _tell(self, plan: Plan, error: float | None) -> None:
        report = self.report
        report.layers = [LayerReport.of(choice) for choice in plan.values()]
        report.measured, report.predicted = error, predicted(plan.values())
        report.bytes_after = report.bytes_before - saved(plan)
        report.own_bytes = sum(choice.bytes for choice in plan.values())
        if self.settings.fold_loras:
            keys = {key.removeprefix("diffusion_model.") for key in self.model.patches}
            report.folded = sum(f"{path}.weight" in keys for path in plan)
        lacking = [name for name in report.formats if name not in self.kernels]
        if lacking:
            report.notice(
                f"this device has no kernel for {' and '.join(lacking)}: it saves memory, not time"
            )


def unloaded(model: Any) -> None:
    """Take a MODEL and its clones off the device, so that its weights are as they came."""
    import comfy.model_management as management

    if model.load_device.type != "cpu" and hasattr(management, "unload_model_and_clones"):
        management.unload_model_and_clones(model)
