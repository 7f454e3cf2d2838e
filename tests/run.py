"""Runs every check of the pack, after setting up a real ComfyUI for it: ``python3 tests/run.py``.

Without arguments: lint, types, the tests on the newest pinned ComfyUI but those marked ``whole``,
and one case of each that is marked ``every_host`` on the oldest; ``--all`` takes every test and
every pinned ComfyUI. Arguments it does not know (``-k``, ``-m``, paths, …) go to pytest, on one
host, with what is marked ``whole`` and without lint and types; ``--lint`` and ``--all-hosts`` bring
those back.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from browser_environment import NoBrowserError, ensure_browser
from comfyui_environment import (
    HOSTS,
    LATEST,
    ROOT,
    Environment,
    SetupError,
    add_arguments,
    ensure_environment,
    link_folder,
    say,
    title_of,
)

SCRIPTS = (
    "tests/benchmark_script.py",
    "tests/browser_environment.py",
    "tests/comfyui_builder.py",
    "tests/comfyui_environment.py",
    "tests/comfyui_server.py",
    "tests/comfyui_workflow.py",
    "tests/node_texts.py",
    "tests/old_workflows.py",
    "tests/run.py",
    "tests/workflow_check.py",
    "workflows/compare_presets.py",
    "workflows/demo.py",
    "workflows/demo_figure.py",
    "workflows/demo_measurement.py",
    "workflows/make_examples.py",
)
CHECKED_PACKAGES = ("acceleration", "nodes")
# The models of the tests are tiny: two processes of one thread do more than one of two. Each takes
# about 1.5 GB.
MOST_PROCESSES = 4
OLDEST = next(iter(HOSTS))


@dataclass
class Results:
    """Exit statuses and times of the checks that ran."""

    rows: list[tuple[str, int, float]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def run(self, title: str, command: Sequence[str], hide: str = "", **variables: str) -> None:
        """Run a check, showing its output without the text in `hide`."""
        say(f"\n=== {title}")
        started = time.monotonic()
        done = subprocess.run(
            list(command),
            cwd=ROOT,
            env={**os.environ, **variables},
            stdout=subprocess.PIPE if hide else None,
            text=True,
        )
        if hide:
            print(done.stdout.replace(hide, ""), end="", flush=True)
        # A check that was killed has a negative status, which must not count as less than success.
        status = done.returncode if done.returncode >= 0 else 128 - done.returncode
        self.rows.append((title, status, time.monotonic() - started))

    def finish(self) -> int:
        say("")
        for title, status, seconds in self.rows:
            say(f"{'ok    ' if status == 0 else 'FAILED'} {seconds:7.1f} s  {title}")
        for reason in self.skipped:
            say(f"SKIPPED           {reason}")
        return max((status for _, status, _ in self.rows), default=0)


def parse(arguments: Sequence[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """Split the command line into our options and those for pytest."""
    parser = argparse.ArgumentParser(
        description="Sets up a real ComfyUI and runs all checks of the pack.",
        epilog="Other arguments (-k, -m, -x, paths, …) are passed to pytest.",
        allow_abbrev=False,
    )
    parser.add_argument("--lint", action="store_true", help="run lint and types as well")
    parser.add_argument("--lint-only", action="store_true", help="run only lint and types")
    parser.add_argument(
        "--all-hosts",
        action="store_true",
        help="run the tests marked every_host on all older pinned ComfyUIs, not only the oldest",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="run everything: lint, types, also the tests marked whole, on all pinned ComfyUIs",
    )
    parser.add_argument("--gpu", action="store_true", help="let ComfyUI use the GPU")
    parser.add_argument(
        "--print-env",
        action="store_true",
        help="only set up, and print the environment as JSON",
    )
    add_arguments(parser)
    return parser.parse_known_args(arguments)


def lint(environment: Environment, results: Results) -> None:
    """Run ruff and mypy."""
    python = str(environment.python)
    cache = environment.cache
    results.run("ruff check", [python, "-m", "ruff", "check", "."])
    results.run("ruff format", [python, "-m", "ruff", "format", "--check", "."])
    # The root is a package whose folder may have any name (with hyphens, mostly), which mypy
    # refuses; seen through a link it has the name that the tests give it.
    view = cache / "types"
    view.mkdir(exist_ok=True)
    link = view / "dit_acceleration_pack"
    if not (link.exists() and link.resolve() == ROOT):
        link.unlink(missing_ok=True)
        link_folder(ROOT, link)
    mypy = [python, "-m", "mypy", "--config-file", "pyproject.toml"]
    mypy += ["--cache-dir", str(cache / "mypy")]
    packages = [name for name in CHECKED_PACKAGES if (ROOT / name).is_dir()]
    if packages:
        wanted = [part for name in packages for part in ("-p", f"dit_acceleration_pack.{name}")]
        # mypy prints paths inside the repository relative to it, others whole.
        prefix = f"{os.path.relpath(link, ROOT)}/" if link.is_relative_to(ROOT) else f"{link}/"
        results.run("mypy: the pack", [*mypy, *wanted], hide=prefix, MYPYPATH=str(view))
    scripts = [path for path in SCRIPTS if (ROOT / path).exists()]
    bases = os.pathsep.join({str(Path(path).parent): "" for path in scripts})
    results.run("mypy: scripts", [*mypy, "--explicit-package-bases", *scripts], MYPYPATH=bases)


def browser_variables(
    environment: Environment, results: Results, arguments: Sequence[str]
) -> dict[str, str]:
    """How pytest finds the browser; what is missing of it is installed only where it is meant."""
    meant = not arguments or any("browser" in argument for argument in arguments)
    try:
        return ensure_browser(environment.cache, install=meant).variables()
    except NoBrowserError as error:
        if meant:
            results.skipped.append(f"browser tests: {error}")
        return {"DIT_ACCEL_NO_BROWSER": str(error)}


def run_pytest(
    environment: Environment,
    results: Results,
    arguments: Sequence[str],
    gpu: bool,
    browser: Mapping[str, str],
    processes: int = 1,
) -> None:
    cores = os.cpu_count() or 1
    threads = str(max(min(cores, MOST_PROCESSES) // processes, 1))
    # A file stays in one process, which builds its models and scenarios once.
    spread = ["-n", str(processes), "--dist", "loadfile"] if processes > 1 else []
    results.run(
        f"pytest on {title_of(environment.version)}",
        [str(environment.python), "-m", "pytest", *spread, *arguments],
        DIT_ACCEL_COMFYUI=str(environment.comfyui),
        DIT_ACCEL_CACHE=str(environment.cache),
        DIT_ACCEL_DEVICE="gpu" if gpu else "cpu",
        OMP_NUM_THREADS=os.environ.get("OMP_NUM_THREADS", threads),
        **browser,
    )


def chosen(*markers: str) -> list[str]:
    """The option of pytest that takes the tests with these markers."""
    return ["-m", " and ".join(markers)] if markers else []


def other_hosts(options: argparse.Namespace, environment: Environment, usual: bool) -> list[str]:
    """On which pinned ComfyUIs the tests marked ``every_host`` run as well."""
    others = [version for version in HOSTS if version != environment.version]
    if options.all or options.all_hosts:
        return others
    # What holds on the oldest and the newest hardly ever fails on those between.
    return [version for version in others if usual and version == OLDEST]


def main() -> int:
    options, pytest_arguments = parse()
    usual = not pytest_arguments and not options.lint_only
    many = usual or options.all
    with_lint = many or options.lint or options.lint_only
    needs = ["torch", "cache_dit", "pytest", "skimage"] + (["ruff", "mypy"] if with_lint else [])
    environment = ensure_environment(
        options.host_version, options.comfyui, options.python, needs=needs
    )
    if options.print_env:
        print(environment.as_json())
        return 0
    # A GPU has its memory counted by the tests, and a few of them are told apart more easily alone.
    spread = many and not options.gpu
    processes = min(os.cpu_count() or 1, MOST_PROCESSES) if spread else 1
    # Who names tests wants all of them.
    quick = ["not whole"] if usual and not options.all else []
    results = Results()
    if with_lint:
        lint(environment, results)
    if options.lint_only:
        return results.finish()
    browser = browser_variables(environment, results, pytest_arguments)
    arguments = [*chosen(*quick), *pytest_arguments]
    run_pytest(environment, results, arguments, options.gpu, browser, processes)
    given = options.comfyui is not None or options.host_version == LATEST
    for version in other_hosts(options, environment, usual and not given):
        other = ensure_environment(version)
        # In the quick check one case of each: what differs between hosts hardly depends on cases.
        few = ["--one-case"] if quick and not options.all_hosts else []
        arguments = [*chosen("every_host", *quick), *few, *pytest_arguments]
        run_pytest(other, results, arguments, options.gpu, browser, processes)
    return results.finish()


if __name__ == "__main__":
    # An exception, unlike the signal itself, also ends the check that is running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    except SetupError as error:
        say(f"error: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
