"""The command that runs the checks: what it takes where, and what it says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from whole import one_case_each

import run
from comfyui_builder import HOSTS, LATEST, NEWEST
from comfyui_environment import Environment


def test_unknown_arguments_go_to_pytest() -> None:
    options, others = run.parse(["-k", "masks", "--all-hosts", "tests/unit", "-x"])
    assert others == ["-k", "masks", "tests/unit", "-x"]
    assert options.all_hosts and not options.lint and not options.all


OLDEST = next(iter(HOSTS))
BETWEEN = [version for version in HOSTS if version not in (NEWEST, OLDEST)]
QUICK = [(NEWEST, "not whole"), (OLDEST, "every_host and not whole")]
WHOLE = [(NEWEST, ""), *((version, "every_host") for version in (OLDEST, *BETWEEN))]


@pytest.mark.parametrize(
    ("arguments", "lint", "ran"),
    [
        ([], True, QUICK),
        (["--gpu"], True, QUICK),
        (["--all"], True, WHOLE),
        (["--all-hosts"], True, [*QUICK, *((v, "every_host and not whole") for v in BETWEEN)]),
        (["tests/unit"], False, [(NEWEST, "")]),
        (["tests/unit", "--all-hosts"], False, WHOLE),
        (["tests/unit", "--all"], True, WHOLE),
        (["--host-version", LATEST], True, [("latest", "not whole")]),
        (["--comfyui", "here"], True, [("here", "not whole")]),
        (["--lint-only"], True, []),
    ],
)
def test_what_runs_where(
    arguments: list[str],
    lint: bool,
    ran: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    seen: list[tuple[str, str]] = []
    linted: list[bool] = []

    def environment(version: str, comfyui: str | None = None, *_: Any, **__: Any) -> Environment:
        return Environment(Path("python"), tmp_path, comfyui or version, tmp_path)

    def tests(made: Environment, _: Any, given: list[str], *__: Any) -> None:
        seen.append((made.version, given[given.index("-m") + 1] if "-m" in given else ""))

    monkeypatch.setattr(run, "ensure_environment", environment)
    monkeypatch.setattr(run, "run_pytest", tests)
    monkeypatch.setattr(run, "lint", lambda *_: linted.append(True))
    monkeypatch.setattr(run, "browser_variables", lambda *_: {})
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    assert run.main() == 0
    assert seen == ran and bool(linted) == lint


@pytest.mark.parametrize(
    ("arguments", "few"), [([], True), (["--all-hosts"], False), (["--all"], False)]
)
def test_the_quick_check_takes_one_case_on_the_oldest(
    arguments: list[str], few: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: dict[str, bool] = {}
    monkeypatch.setattr(
        run,
        "ensure_environment",
        lambda version, *_, **__: Environment(Path("python"), tmp_path, version, tmp_path),
    )
    monkeypatch.setattr(
        run,
        "run_pytest",
        lambda made, _, given, *__: seen.update({made.version: "--one-case" in given}),
    )
    monkeypatch.setattr(run, "lint", lambda *_: None)
    monkeypatch.setattr(run, "browser_variables", lambda *_: {})
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    assert run.main() == 0
    assert seen[NEWEST] is False and seen[OLDEST] is few


def test_one_case_is_the_first_that_is_left() -> None:
    given = [SimpleNamespace(nodeid=name) for name in ("a::t[1]", "a::t[2]", "b::t[2]", "a::u")]
    left, rest = one_case_each(given)
    assert [item.nodeid for item in left] == ["a::t[1]", "b::t[2]", "a::u"]
    assert [item.nodeid for item in rest] == ["a::t[2]"]


def test_the_check_on_a_newer_comfyui_says_so_in_its_title(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    made = Environment(Path(sys.executable), tmp_path, "99.0.0", tmp_path)
    monkeypatch.setattr(run, "ensure_environment", lambda *args, **kwargs: made)
    monkeypatch.setattr(run.subprocess, "run", lambda *args, **kwargs: Done())
    monkeypatch.setattr(sys, "argv", ["run.py", "--comfyui", str(tmp_path), "tests/unit"])
    assert run.main() == 0
    title = f"pytest on ComfyUI 99.0.0, newer than the newest pinned one, {NEWEST}"
    assert capsys.readouterr().err.count(title) == 2, "above the output and in the list at the end"


class Done:
    """A check that has passed."""

    returncode = 0
    stdout = ""


def test_print_env_is_json_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    made = Environment(Path("python"), Path("comfyui"), "1.2.3", tmp_path)
    monkeypatch.setattr(run, "ensure_environment", lambda *args, **kwargs: made)
    monkeypatch.setattr(sys, "argv", ["run.py", "--print-env"])
    assert run.main() == 0
    assert json.loads(capsys.readouterr().out) == {
        "python": "python",
        "comfyui": "comfyui",
        "version": "1.2.3",
    }
