"""One way to wrap what the host does: a sampling run, and one call of the model within it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import AccelerationError
from ..failures import log_failure
from ..report import REFUSED, RunReport
from .levers import Reports, argument

log = logging.getLogger("dit_acceleration")


@dataclass(frozen=True)
class Sampling:
    """One sampling run: OUTER_SAMPLE's ``(noise, latent_image, sampler, sigmas, …)``."""

    guider: Any
    options: dict[str, Any]
    """The run's own ``transformer_options``."""
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def sampler(self) -> Any:
        return argument(self.args, self.kwargs, 2, "sampler")

    @property
    def sigmas(self) -> Any:
        """``[steps + 1]``"""
        return argument(self.args, self.kwargs, 3, "sigmas")

    @property
    def patcher(self) -> Any:
        """The MODEL that is sampled."""
        return self.guider.model_patcher


class RunLever(Reports):
    """A lever that opens something of its own for every sampling run and closes it after.

    A lever has ``_open`` and ``_close``. Ours never ends a run: what goes wrong in them is told,
    and the host samples. Only a setting that cannot work (AccelerationError) passes.
    """

    key = ""
    """Under which a run stands in ``transformer_options`` while it lasts."""

    def wrappers(self) -> list[tuple[str, Callable[..., Any]]]:
        """The host's wrapper kinds and our functions for them."""
        from comfy.patcher_extension import WrappersMP

        return [(WrappersMP.OUTER_SAMPLE, self.outer_sample)]

    def outer_sample(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        """OUTER_SAMPLE: ``(noise, latent_image, sampler, sigmas, …)``."""
        guider = executor.class_obj
        options = guider.model_options.setdefault("transformer_options", {})
        try:
            self.tell_replaced()
            run = self._open(Sampling(guider, options, args, kwargs))
            self._put_in(run, options)
        except AccelerationError as error:
            raise self._refused(error) from None
        except Exception as error:
            self._not_opened(error)
            return executor(*args, **kwargs)
        finished, refused = False, None
        try:
            output = executor(*args, **kwargs)
            finished = True
            return output
        except AccelerationError as error:
            refused = error
            raise
        finally:
            self._take_out(run, options)
            try:
                self.last_report = run.report
                self._close(run, finished)
                log.info("%s", run.report.sentence())
            except Exception as error:
                self._not_closed(run, error, guider.model_patcher.load_device)
            if refused is not None and refused.title == self.title:
                self._refused(refused)

    def _refused(self, error: AccelerationError) -> AccelerationError:
        """The error with this lever's node named, which shows it too; else only the sampler did."""
        named = error.of(self.title)
        if self.shown is not None:
            why = str(named).removeprefix(f"{self.title}: ").rstrip(".")
            self.shown.tell(RunReport(self.name, explanation=why, outcome=REFUSED))
        return named

    def _open(self, sampling: Sampling) -> Any:
        """What lives as long as the run; it has the run's ``report``."""
        raise NotImplementedError

    def _close(self, run: Any, finished: bool) -> None:
        """The run is over: finish its report."""
        raise NotImplementedError

    def _not_opened(self, error: Exception) -> None:
        """Say why the run goes on without this lever."""
        log_failure(error)

    def _not_closed(self, run: Any, error: Exception, device: torch.device) -> None:
        """Say what went wrong after sampling had its picture."""
        log_failure(error)

    def _put_in(self, run: Any, options: dict[str, Any]) -> None:
        """The run's model calls find it from now on."""
        step_in(options, self.key, run)

    def _take_out(self, run: Any, options: dict[str, Any]) -> None:
        """They do no more."""
        step_out(options, self.key, run)


_stepping = threading.Lock()
"""Held while a run steps into options or out of them, never while anything is computed."""


def step_in(options: dict[str, Any], key: str, run: Any) -> None:
    """Stand under a key of ``transformer_options``, before whoever stands there.

    Runs within runs (a node that samples while another one does) and runs of threads with one
    guider share options, and come and go in any order.
    """
    with _stepping:
        if key in options:
            options.setdefault(_behind(key), []).append(options[key])
        options[key] = run


def step_out(options: dict[str, Any], key: str, run: Any) -> bool:
    """Stand there no more; whoever else does, goes on standing there.

    Returns whether the run had been the foremost.
    """
    with _stepping:
        behind = options.get(_behind(key), [])
        foremost = options.get(key) is run
        if not foremost:
            behind[:] = [one for one in behind if one is not run]
        elif behind:
            options[key] = behind.pop()
        else:
            del options[key]
        if not behind:
            options.pop(_behind(key), None)
        return foremost


def _behind(key: str) -> str:
    return f"{key}.behind"


@dataclass(frozen=True)
class ModelCall:
    """One call of APPLY_MODEL: ``(x, t, c_concat, c_crossattn, control, transformer_options, …)``.

    ``x`` is the noisy latent ``[B, C, …]``.
    """

    executor: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def execute(self) -> Any:
        """What the host would do without us."""
        return self.executor(*self.args, **self.kwargs)

    @property
    def x(self) -> Any:
        return self.args[0]

    @property
    def model(self) -> Any:
        """The host's model, of this device."""
        return self.executor.class_obj

    @property
    def network(self) -> Any:
        """The transformer in it, or None."""
        return getattr(self.model, "diffusion_model", None)

    @property
    def options(self) -> dict[str, Any]:
        found: dict[str, Any] = argument(self.args, self.kwargs, 5, "transformer_options", {})
        return found

    @property
    def control(self) -> Any:
        """What a ControlNet adds, or None."""
        return argument(self.args, self.kwargs, 4, "control")

    @property
    def conditions(self) -> dict[str, Any]:
        """All else that the network is given."""
        places = {"concat": (2, "c_concat"), "context": (3, "c_crossattn")}
        found = {name: argument(self.args, self.kwargs, *at) for name, at in places.items()}
        rest = self.kwargs.items()
        return found | {k: v for k, v in rest if k not in ("control", "transformer_options")}

    def run_of(self, key: str) -> Any:
        """The run of a lever that this call belongs to, or None."""
        return self.options.get(key) if "sigmas" in self.options else None
