"""What the browser tests need beyond ComfyUI: Node.js, a Chromium, and two packages of npm.

The packages go into the cache folder. A missing browser is installed where that takes no question
(as root on Debian or Ubuntu); anywhere else the tests are skipped and the reason is said.
Only the standard library is used.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from comfyui_builder import ROOT, Log, locked, run_with_progress, say

PACKAGES = ROOT / "tests" / "browser" / "package.json"
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OLDEST_NODE = 18


class NoBrowserError(RuntimeError):
    """There is no browser to test with; the message is one sentence that says what is missing."""


@dataclass(frozen=True)
class Browser:
    """Programs of the browser tests, and the folder that holds ``node_modules``."""

    node: Path
    chromium: Path
    folder: Path

    def variables(self) -> dict[str, str]:
        """How the tests are told, through their environment."""
        return {
            "DIT_ACCEL_NODE": str(self.node),
            "DIT_ACCEL_CHROMIUM": str(self.chromium),
            "DIT_ACCEL_BROWSER": str(self.folder),
        }


def ensure_browser(cache: Path, install: bool = True, log: Log = say) -> Browser:
    """Find what the browser tests need, installing what is missing if allowed.

    Raises
    ------
    NoBrowserError
        With one sentence that says what is missing and how to get it.
    """
    if os.name == "nt":
        raise NoBrowserError("the browser tests run on Linux and macOS only")
    with locked(cache / "setup.lock", log):
        missing = [name for name, path in programs().items() if path is None]
        if missing and install and can_install():
            log(f"Installing {', '.join(missing)} for the browser tests")
            install_programs(missing, cache, log)
        found = programs()
        missing = [name for name, path in found.items() if path is None]
        if missing:
            raise NoBrowserError(
                f"there is no {' and no '.join(missing)}: install it (Debian: apt-get install "
                "chromium nodejs npm) or name a browser in DIT_ACCEL_CHROMIUM"
            )
        node, npm, chromium = (found[name] for name in ("nodejs", "npm", "chromium"))
        assert node is not None and npm is not None and chromium is not None
        require_version(node)
        folder = cache / "browser"
        ensure_packages(npm, folder, install, log)
    return Browser(node, chromium, folder)


def programs() -> dict[str, Path | None]:
    """Where the programs are, by the names of their Debian packages."""
    named = os.environ.get("DIT_ACCEL_CHROMIUM")
    chromiums = [named] if named else list(CHROMIUMS)
    return {
        "nodejs": which("node"),
        "npm": which("npm"),
        "chromium": next((path for name in chromiums if (path := which(name))), None),
    }


def which(name: str) -> Path | None:
    found = shutil.which(name)
    return Path(found) if found else None


def can_install() -> bool:
    """Whether programs can be installed without asking anybody."""
    return hasattr(os, "geteuid") and os.geteuid() == 0 and which("apt-get") is not None


def install_programs(names: list[str], cache: Path, log: Log) -> None:
    """Install Debian packages; what does not work shows in what is still missing."""
    log_file = cache / "setup.log"
    os.environ.setdefault("DEBIAN_FRONTEND", "noninteractive")
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *names]):
        status, _ = run_with_progress(["apt-get", "--quiet", *command], log_file, log)
        if status:
            log(f"  apt-get {command[0]} did not succeed (see {log_file})")


def require_version(node: Path) -> None:
    """Raise NoBrowserError when Node.js is too old for the driver."""
    done = subprocess.run([str(node), "--version"], capture_output=True, text=True)
    version = done.stdout.strip().removeprefix("v")
    major = version.partition(".")[0]
    if not major.isdigit() or int(major) < OLDEST_NODE:
        raise NoBrowserError(f"Node.js is {version or '?'}, and {OLDEST_NODE} or newer is needed")


def ensure_packages(npm: Path, folder: Path, install: bool, log: Log) -> None:
    """Install the pinned packages of ``tests/browser/package.json``, unless that is done."""
    wanted = PACKAGES.read_text(encoding="utf-8")
    done = folder / "installed.json"
    if done.exists() and done.read_text(encoding="utf-8") == wanted:
        return
    if not install:
        raise NoBrowserError("its packages are not installed: python3 tests/run.py tests/browser")
    log("Installing the packages of the browser tests")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "package.json").write_text(wanted, encoding="utf-8")
    command = [str(npm), "--prefix", str(folder), "install", "--no-audit", "--no-fund"]
    log_file = folder.parent / "setup.log"
    status, lines = run_with_progress([*command, "--no-package-lock"], log_file, log)
    if status:
        said = [line for line in lines if "error" in line.lower()] or lines[-1:] or ["?"]
        raise NoBrowserError(f"npm could not install its packages: {said[0]} (see {log_file})")
    done.write_text(wanted, encoding="utf-8")
