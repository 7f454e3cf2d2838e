"""A real ComfyUI to test and demonstrate the pack in: a pinned one, or one that is there already.

``ensure_environment`` returns an interpreter and a ComfyUI folder that finds this pack and its
demo pack. A pinned ComfyUI is made from nothing but Python and pip and kept in a cache folder
(``.cache`` in the repository, or ``DIT_ACCEL_CACHE``); an existing one is left as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from comfyui_builder import (
    HOSTS,
    LATEST,
    NEWEST,
    ROOT,
    Builder,
    Log,
    SetupError,
    can_import,
    interpreter_in,
    is_newer,
    locked,
    say,
)

# Folder names in custom_nodes; the host whitelists and shows packs by these.
PACKS = {
    "ComfyUI-DiT-Acceleration": ROOT,
    "dit_acceleration_demo": ROOT / "workflows" / "demo",
}
DISTRIBUTIONS = {"cache_dit": "cache-dit", "skimage": "scikit-image", "PIL": "pillow"}


@dataclass(frozen=True)
class Environment:
    """A ComfyUI folder, the interpreter that runs it, and where it finds this pack.

    Attributes
    ----------
    packs
        Names of our folders among the custom nodes, for the host's whitelist.
    extra_custom_nodes
        A further folder of custom nodes the host has to be told of: set when an existing ComfyUI
        does not have this pack in its own ``custom_nodes``, which is left untouched.
    """

    python: Path
    comfyui: Path
    version: str
    cache: Path
    packs: tuple[str, ...] = ()
    extra_custom_nodes: Path | None = None

    def as_json(self) -> str:
        return json.dumps(
            {"python": str(self.python), "comfyui": str(self.comfyui), "version": self.version}
        )


def title_of(version: str) -> str:
    """A ComfyUI as the checks name it."""
    newer = f", newer than the newest pinned one, {NEWEST}" if is_newer(version) else ""
    return f"ComfyUI {version}{newer}"


def default_cache() -> Path:
    return Path(os.environ.get("DIT_ACCEL_CACHE") or ROOT / ".cache").absolute()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose a ComfyUI to a command."""
    group = parser.add_argument_group("the ComfyUI that is used")
    group.add_argument(
        "--comfyui",
        metavar="PATH",
        default=os.environ.get("COMFYUI_PATH") or None,
        help="an existing ComfyUI folder instead of a pinned one (or COMFYUI_PATH)",
    )
    group.add_argument(
        "--python",
        metavar="PATH",
        default=os.environ.get("COMFYUI_PYTHON") or None,
        help="the interpreter of that ComfyUI (or COMFYUI_PYTHON); found beside it by default",
    )
    group.add_argument(
        "--host-version",
        choices=[*HOSTS, LATEST],
        default=NEWEST,
        help="which pinned ComfyUI to use (default: %(default)s), or the latest released one, "
        "with a virtual environment of its own",
    )


def ensure_environment(
    host_version: str = NEWEST,
    comfyui: str | Path | None = None,
    python: str | Path | None = None,
    cache: str | Path | None = None,
    needs: Sequence[str] = (),
    log: Log = say,
) -> Environment:
    """Return a ready environment, making what is missing of it.

    Parameters
    ----------
    host_version
        A key of `HOSTS`, or `LATEST`; ignored when `comfyui` is given.
    comfyui, python
        An existing ComfyUI folder and its interpreter. Nothing is installed into it.
    needs
        Modules an existing ComfyUI must be able to import (a made environment has them all).

    Raises
    ------
    SetupError
        With one sentence that names what is missing and how to get it.
    """
    folder = Path(cache).absolute() if cache else default_cache()
    folder.mkdir(parents=True, exist_ok=True)
    if comfyui:
        return existing_environment(Path(comfyui), python, folder, needs)
    if host_version == LATEST:
        return latest_environment(folder / LATEST, log)
    if host_version not in HOSTS:
        raise SetupError(f"ComfyUI {host_version} is not pinned here; choose {', '.join(HOSTS)}.")
    with locked(folder / "setup.lock", log):
        builder = Builder(folder, log)
        builder.ensure_host(NEWEST)
        builder.ensure_requirements()
        host = builder.ensure_host(host_version)
        link_packs(host / "custom_nodes", PACKS)
    return Environment(builder.python, host, host_version, folder, tuple(PACKS))


def latest_environment(cache: Path, log: Log) -> Environment:
    """The newest released ComfyUI, with what it needs, apart from the pinned ones."""
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / "setup.lock", log):
        builder = Builder(cache, log, newest=LATEST)
        host = builder.fetch_latest()
        builder.ensure_requirements()
    return existing_environment(host, builder.python, cache, ())


def existing_environment(
    comfyui: Path, python: str | Path | None, cache: Path, needs: Sequence[str]
) -> Environment:
    """Describe an existing ComfyUI, whose folder is left as it is."""
    comfyui = comfyui.expanduser().absolute()
    if not (comfyui / "main.py").is_file():
        raise SetupError(f"{comfyui} holds no ComfyUI: there is no main.py in it.")
    found = find_interpreter(comfyui, python)
    missing = [name for name in needs if not can_import(found, name)]
    if missing:
        packages = " ".join(DISTRIBUTIONS.get(name, name) for name in missing)
        raise SetupError(
            f"{found} cannot import {', '.join(missing)}; run "
            f'"{found} -m pip install {packages}" and start again.'
        )
    version_file = comfyui / "comfyui_version.py"
    text = version_file.read_text(encoding="utf-8") if version_file.exists() else ""
    match = re.search(r'__version__\s*=\s*"([^"]+)"', text)
    return with_packs(Environment(found, comfyui, match[1] if match else "unknown", cache))


def with_packs(environment: Environment) -> Environment:
    """Find our packs among the host's custom nodes, and link the others in a folder of ours."""
    own = environment.comfyui / "custom_nodes"
    entries = {entry.name: entry.resolve() for entry in own.iterdir()} if own.is_dir() else {}
    found, others = [], {}
    for name, source in PACKS.items():
        here = [entry for entry, target in entries.items() if target == source.resolve()]
        if here:
            found.append(here[0])
        else:
            # The host may have another copy of the pack under this name; only ours is to load.
            others[name if name not in entries else name + "-checkout"] = source
    if not others:
        return replace(environment, packs=tuple(found))
    extra = environment.cache / "custom_nodes"
    link_packs(extra, others)
    return replace(environment, packs=(*found, *others), extra_custom_nodes=extra)


def link_packs(custom_nodes: Path, packs: Mapping[str, Path]) -> None:
    """Link packs into a folder of custom nodes under the given names."""
    custom_nodes.mkdir(parents=True, exist_ok=True)
    for name, source in packs.items():
        link = custom_nodes / name
        if link.exists() and link.resolve() == source.resolve():
            continue
        if link.is_symlink():
            link.unlink()
        elif link.exists():
            shutil.rmtree(link)
        link_folder(source, link)


def link_folder(source: Path, link: Path) -> None:
    """Link a folder by what the system allows: symlink, Windows junction, or a copy."""
    try:
        link.symlink_to(source, target_is_directory=True)
        return
    except OSError:
        pass
    try:
        import _winapi

        _winapi.CreateJunction(str(source), str(link))  # type: ignore[attr-defined,unused-ignore]
        return
    except (ImportError, OSError, AttributeError):
        pass
    shutil.copytree(source, link, ignore=shutil.ignore_patterns(".*", "__pycache__", "tests"))


def find_interpreter(comfyui: Path, python: str | Path | None) -> Path:
    """Return the interpreter of an existing ComfyUI: the given one, its own, or this one."""
    if python:
        given = Path(python).expanduser().absolute()
        if not given.is_file():
            raise SetupError(f"There is no interpreter {given}.")
        return given
    homes = [comfyui / "venv", comfyui / ".venv", comfyui.parent / "venv", comfyui.parent / ".venv"]
    candidates = [interpreter_in(home) for home in homes]
    # The portable build for Windows spells it so.
    candidates += [comfyui.parent / "python_embeded" / "python.exe", Path(sys.executable)]
    for candidate in candidates:
        if candidate.is_file() and can_import(candidate, "torch"):
            return candidate
    raise SetupError(
        f"No interpreter with torch was found beside {comfyui}; name it with --python or "
        "COMFYUI_PYTHON."
    )
