"""What was found by trying on this machine, kept in the host's user folder."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger("dit_acceleration")


def choices_file(name: str) -> Path:
    """Where choices are kept. Deleting it measures anew."""
    import folder_paths

    return Path(folder_paths.get_user_directory()) / "dit_acceleration" / f"{name}.json"


def read_choices(path: Path) -> dict[str, dict[str, Any]]:
    """By key, what was chosen; a file that cannot be read is as none."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(k): dict(v) for k, v in found.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        log.warning("The remembered choices %s are ignored: %s", path.name, error)
        return {}


def write_choices(path: Path, memory: Mapping[str, dict[str, Any]]) -> None:
    """Add choices; a half-written file never takes the place of a whole one."""
    # Two runs may end at once.
    part = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Another run may have added to it meanwhile.
        part.write_text(json.dumps({**read_choices(path), **memory}, indent=1), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        log.warning("Choices could not be remembered: %s", error)
