"""Levers on a MODEL: what one of our nodes put there, found again by its key.

A lever is the host's attachment and its wrappers under one key. A second lever with the same key
takes the place of the first; levers with different keys compose.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from ..errors import AccelerationError
from ..report import REPLACED, SWITCHED_OFF, RunReport
from ..settings.environment import lossy_locked
from .live_report import LiveNode

log = logging.getLogger("dit_acceleration")

PREFIX = "dit_acceleration"
"""Every key of ours begins with this."""

COMPILE_KEY = "torch.compile"
"""The host's key of its own compiling wrapper (comfy_api.torch_helpers.torch_compile)."""

PROFILE_KEY = f"{PREFIX}.profile"
"""Key of the profiling lever and of its run in ``transformer_options``, which caching reads."""


def argument(
    args: tuple[Any, ...], kwargs: dict[str, Any], place: int, name: str, default: Any = None
) -> Any:
    """What the host gave a wrapper, by place or by name: both ways change from host to host."""
    return kwargs.get(name, args[place] if len(args) > place else default)


class LeverReport(Protocol):
    """What a lever did in its last run, as plain data without tensors."""

    def sentence(self) -> str:
        """What was gained, or why nothing was."""
        ...

    def text(self) -> str:
        """A few lines for people, the sentence first."""
        ...

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready data."""
        ...


class Lever(Protocol):
    """Holds settings and the last report, never tensors."""

    @property
    def name(self) -> str:
        """Name for people, such as "Cache-DiT"."""
        ...

    @property
    def settings(self) -> Any:
        """What was asked for."""
        ...

    @property
    def changes_pictures(self) -> bool:
        """Whether an operator's lock concerns it."""
        ...

    @property
    def shown(self) -> LiveNode | None:
        """The node that shows its runs, None without one."""
        ...

    before: list[Lever]
    """Levers of other nodes, in whose place this one stands."""

    def prepare(self, model: Any) -> None:
        """Before it goes on a MODEL: raise AccelerationError if it cannot work there."""
        ...

    @property
    def last_report(self) -> LeverReport | None:
        """The report of the last finished run, None before it."""
        ...

    def report_of(self, node: str | None) -> LeverReport | None:
        """The report of what a node sampled; of the last run where that is not known."""
        ...

    def sampled_by(self) -> set[str]:
        """Ids of the nodes that have sampled."""
        ...

    def wrappers(self) -> list[tuple[str, Callable[..., Any]]]:
        """The host's wrapper kinds (``WrappersMP``) and our functions for them."""
        ...


class Reports:
    """Keeps the reports of a lever: the last one, and the last of each node that sampled.

    Several samplers may share a MODEL, and one that the host has no need to run again still has
    its report.
    """

    @property
    def changes_pictures(self) -> bool:
        """Whether an operator's lock concerns it."""
        return False

    def prepare(self, model: Any) -> None:
        """Works on every MODEL."""

    def __init__(self, shown: LiveNode | None = None) -> None:
        self.shown = shown
        self.before: list[Lever] = []
        """Levers of other nodes, in whose place this one stands."""
        self._last: Any = None
        self._by_node: dict[str, Any] = {}

    @property
    def last_report(self) -> Any:
        """The report of the last run, None before it."""
        return self._last

    @last_report.setter
    def last_report(self, report: Any) -> None:
        self._last = report
        node = sampling_node()
        if node is not None:
            self._by_node.pop(node, None)
            self._by_node[node] = report
            for oldest in list(self._by_node)[:-MOST_REPORTS]:
                del self._by_node[oldest]

    @property
    def name(self) -> str:
        """Name for people."""
        raise NotImplementedError

    @property
    def title(self) -> str:
        """Title of the node that set it up."""
        return self.name

    def tell_replaced(self) -> None:
        """Say on the nodes before this one that their runs are now its."""
        for lever in self.before:
            if lever.shown is not None:
                why = f"{self.title} comes after it on this model and takes its place"
                lever.shown.tell(RunReport(lever.name, explanation=why, outcome=REPLACED))

    def report_of(self, node: str | None) -> Any:
        """The report of what a node sampled; of the last run where that is not known."""
        return self._by_node.get(node or "", self._last)

    def sampled_by(self) -> set[str]:
        """Ids of the nodes that have sampled."""
        return set(self._by_node)


class SwitchedOff(Reports):
    """A lever that does nothing but say why; it keeps the settings that were asked for."""

    def __init__(self, name: str, settings: Any, why: str, shown: LiveNode | None = None) -> None:
        super().__init__(shown)
        self._name = name
        self.settings = settings
        self.why = why
        self.last_report = RunReport(name, explanation=why, outcome=SWITCHED_OFF)

    @property
    def name(self) -> str:
        return self._name

    def wrappers(self) -> list[tuple[str, Callable[..., Any]]]:
        """The model samples as if the node were not there; its node says so at every run."""
        from comfy.patcher_extension import WrappersMP

        return [(WrappersMP.OUTER_SAMPLE, self.outer_sample)] if self.shown else []

    def outer_sample(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        """OUTER_SAMPLE, whatever its arguments."""
        self.tell_replaced()
        if self.shown is not None:
            self.shown.tell(self._last)
        return executor(*args, **kwargs)


MOST_REPORTS = 32
"""Nodes whose reports a lever keeps."""


def sampling_node() -> str | None:
    """Id of the node that the host executes now, None outside of a graph."""
    try:
        from comfy_execution.utils import get_executing_context

        context = get_executing_context()
    except Exception:
        return None
    return None if context is None else str(context.node_id)


def nearest_sampler(prompt: Any, node: str, name: str, samplers: set[str]) -> str | None:
    """Of the nodes that sampled, the one nearest before an input of a node.

    Parameters
    ----------
    prompt
        The host's graph: node ids with ``inputs``, of which links are ``[node id, output]``.
    node, name
        The node and its input.
    samplers
        Ids among which to choose.
    """
    graph = prompt if isinstance(prompt, dict) else {}
    links = [graph.get(node, {}).get("inputs", {}).get(name)]
    met: set[str] = set()
    while links:
        ahead: list[Any] = []
        for link in links:
            if not isinstance(link, list) or len(link) != 2 or str(link[0]) in met:
                continue
            source = str(link[0])
            if source in samplers:
                return source
            met.add(source)
            ahead += graph.get(source, {}).get("inputs", {}).values()
        links = ahead
    return None


def require_model(model: Any, name: str) -> None:
    """Raise AccelerationError when the input of the lever ``name`` is no MODEL."""
    if not hasattr(model, "add_wrapper_with_key"):
        raise AccelerationError(
            f"{name} needs a MODEL, got {type(model).__name__}: connect a model loader."
        )


def put(model: Any, key: str, lever: Lever, outermost: bool = False) -> Any:
    """A clone of a MODEL with a lever, in the place of one of the same key.

    An ``outermost`` lever wraps all that were put before it; else the first one is outermost.

    This is where the operator's lock is asked, and nowhere else. A lock is never an error: the
    workflow runs, and in the lever's place stands one that says what was left out.

    Raises
    ------
    AccelerationError
        When the input is no MODEL, or the lever cannot work on it.
    """
    require_model(model, lever.name)
    locked = lossy_locked() if lever.changes_pictures else None
    if locked is None:
        lever.prepare(model)
    else:
        log.info("%s: %s.", lever.name, locked)
        lever = SwitchedOff(lever.name, lever.settings, locked, lever.shown)
    earlier = lever_of(model, key)
    lever.before = [] if earlier is None else [*earlier.before, earlier]
    patched = without(model, key)
    for kind, wrapper in lever.wrappers():
        patched.add_wrapper_with_key(kind, key, wrapper)
        if outermost:
            kept = patched.wrappers[kind]
            patched.wrappers[kind] = {key: kept.pop(key), **kept}
    patched.set_attachments(key, lever)
    return patched


def without(model: Any, key: str) -> Any:
    """A clone of a MODEL without the lever of a key."""
    from comfy.patcher_extension import WrappersMP

    patched = model.clone()
    for kind in (v for k, v in vars(WrappersMP).items() if k.isupper()):
        patched.remove_wrappers_with_key(kind, key)
    patched.remove_attachments(key)
    return patched


def lever_of(model: Any, key: str) -> Lever | None:
    """The lever with this key on a MODEL, or None."""
    lever: Lever | None = model.get_attachment(key)
    return lever


def levers_of(model: Any) -> dict[str, Lever]:
    """Every lever of ours on a MODEL, by key, in the order of attaching."""
    return {
        key: lever
        for key, lever in getattr(model, "attachments", {}).items()
        if key == PREFIX or str(key).startswith(PREFIX + ".")
    }
