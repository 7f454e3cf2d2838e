"""What the registry's tool packs: the files that git tracks and ``.comfyignore`` does not name.

New files that git does not ignore count as tracked, as they are with the next commit: what is read
here is a working tree, which may be ahead of its checkout. One that is never added is missing in
every fresh checkout, where nothing would load.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from comfyui_environment import ROOT


def files() -> list[Path]:
    """The files of the published archive, relative to the repository; empty without git."""
    found = _listed() | _listed("--others", "--exclude-standard")
    for kind in ("--cached", "--others"):
        found -= _listed(kind, "--ignored", "--exclude-from=.comfyignore")
    return sorted(Path(name) for name in found if (ROOT / name).exists())


def _listed(*options: str) -> set[str]:
    command = ["git", "-c", "core.quotepath=off", "ls-files", "-z", *options]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        return set()
    return {name for name in done.stdout.split("\0") if name} if done.returncode == 0 else set()
