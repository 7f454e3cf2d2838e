"""Setting up the browser tests: what is missing is said, what is there is not installed again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import browser_environment
from browser_environment import NoBrowserError, ensure_browser

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the browser tests do not run there")


def program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path | None]:
    """Programs that are there; npm counts its calls."""
    calls = tmp_path / "calls"
    programs: dict[str, Path | None] = {
        "nodejs": program(tmp_path / "node", "echo v20.1.0"),
        "npm": program(tmp_path / "npm", f"echo called >> {calls}"),
        "chromium": program(tmp_path / "chromium", ""),
    }
    monkeypatch.setattr(browser_environment, "programs", lambda: programs)
    monkeypatch.setattr(browser_environment, "can_install", lambda: False)
    return programs


def test_packages_are_installed_once(found: dict[str, Path | None], tmp_path: Path) -> None:
    first, second = (ensure_browser(tmp_path, log=lambda _: None) for _ in range(2))
    assert first == second
    assert (tmp_path / "calls").read_text().split() == ["called"]
    assert first.variables()["DIT_ACCEL_CHROMIUM"] == str(found["chromium"])


def test_a_failed_installation_is_said_and_tried_again(
    found: dict[str, Path | None], tmp_path: Path
) -> None:
    program(tmp_path / "npm", "echo npm error no network; exit 1")
    with pytest.raises(NoBrowserError, match="no network"):
        ensure_browser(tmp_path, log=lambda _: None)
    program(tmp_path / "npm", "true")
    ensure_browser(tmp_path, log=lambda _: None)


def test_what_is_missing_is_named_with_the_way_out(
    found: dict[str, Path | None], tmp_path: Path
) -> None:
    found["chromium"] = None
    with pytest.raises(NoBrowserError, match="no chromium: install it"):
        ensure_browser(tmp_path, log=lambda _: None)


def test_an_old_node_is_named_with_its_version(
    found: dict[str, Path | None], tmp_path: Path
) -> None:
    program(tmp_path / "node", "echo v16.20.2")
    with pytest.raises(NoBrowserError, match=r"16\.20\.2, and 18"):
        ensure_browser(tmp_path, log=lambda _: None)


def test_nothing_is_installed_when_it_was_not_asked_for(
    found: dict[str, Path | None], tmp_path: Path
) -> None:
    with pytest.raises(NoBrowserError, match="not installed"):
        ensure_browser(tmp_path, install=False, log=lambda _: None)
    assert not (tmp_path / "calls").exists()
