"""Inputs made of settings, and what more than one node has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from comfy_api.latest import io

from ..acceleration.errors import AccelerationError
from ..acceleration.setting import Setting, settings_of
from ..acceleration.settings.environment import lossy_locked, settings_for

CATEGORY = "DiT acceleration"
"""Where the page lists the nodes: under the pack's own name, which people look for."""

AccelConfig = io.Custom("ACCEL_CONFIG")
"""A settings file, read and checked: ``acceleration.settings.sections.Configuration``."""


def setting_inputs(settings: type[Any], **more: str) -> list[Any]:
    """The inputs of a node that has these settings, in their order, and ``config`` last.

    ``more`` gives tooltips a further line, by the name of the input.
    """
    found = [
        _input(name, default, known, more.get(name))
        for name, default, known in settings_of(settings)
        if known.on_node
    ]
    return [*found, _config_input()]


def _input(name: str, default: Any, known: Setting, more: str | None) -> Any:
    """The host's input for a field; always optional, so that saved graphs go on working."""
    options: dict[str, Any] = {"optional": True, "default": default}
    options["tooltip"] = known.help if more is None else f"{known.help}\n{more}"
    if known.advanced:
        options["advanced"] = True
    if known.choices:
        return io.Combo.Input(name, options=list(known.choices), **options)
    if isinstance(default, bool):
        return io.Boolean.Input(name, **options)
    if isinstance(default, str):
        return io.String.Input(name, **options)
    kind = io.Int if isinstance(default, int) else io.Float
    step = {} if known.step is None else {"step": known.step}
    return kind.Input(name, min=known.lowest, max=known.highest, **step, **options)


def _config_input() -> Any:
    return AccelConfig.Input(
        "config",
        optional=True,
        tooltip="Settings of a file, from Load Acceleration Config. A value of this node that is "
        "not its default wins over the file, the file over the server's environment.",
    )


UNLINKED = object()
"""Default of ``config`` in a ``validate_inputs``: the host gives None for what is linked."""


def refusal(
    section: str, config: Any, settings: dict[str, Any], check: Callable[[Any], None] | None = None
) -> bool | str:
    """The answer of a ``validate_inputs``: what is wrong with the values of a node, or True.

    What is linked, or may come from a file, is known when the node runs, and checked then.

    Parameters
    ----------
    check
        Raises AccelerationError where settings that are sound cannot work here. Not asked on a
        server whose operator has locked what changes pictures: there a lever is off, no error.
    """
    if config is not UNLINKED or None in settings.values():
        return True
    try:
        found = settings_for(section, settings, None)
        if check is not None and lossy_locked() is None:
            check(found.settings)
    except AccelerationError as error:
        return str(error)
    return True


SHOWS_ITS_RUNS = True
"""``not_idempotent`` of a node that shows on itself what its MODEL's runs did.

Without it the host takes the output of an equal node, or of the same one under another id, from its
memory, and that node shows the runs instead. Loaders before it stay remembered, and the copies of a
MODEL share its weights.
"""


def node_id(node: type[io.ComfyNode]) -> str | None:
    """Id in the graph of the node that is executed; its schema must list the hidden input."""
    return getattr(node.hidden, "unique_id", None)
