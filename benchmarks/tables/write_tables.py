#!/usr/bin/env python3
"""Writes every table of the documentation, between its markers.

What a document has between ``<!-- table:NAME -->`` and ``<!-- /table:NAME -->`` is replaced by
what ``benchmarks/results/*.json`` and the engine say. ``--check`` only tells which file is not up
to date. It needs nothing but Python: what the engine imports comes from the environment of the
tests.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

# Also where another script loads this file by its path: its neighbors, and what measures.
sys.path.append(str(Path(__file__).resolve().parent))
sys.path.append(str(Path(__file__).resolve().parent.parent))

import cost_tables
import demo_tables
import engine_tables
import performance_tables
import plan_tables
import progressive_tables
import quantize_tables
from attention_tables import attention
from full_size_tables import full_size
from harness import ROOT, SetupError, add_arguments, ensure_environment, say
from parallel_tables import parallel

FILES = (
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "web" / "docs").glob("*.md")),
    ROOT / "benchmarks" / "README.md",
)
NEEDS = ("torch", "yaml")

TABLES: dict[str, Callable[[], str]] = {
    "presets": performance_tables.presets,
    "presets-list": performance_tables.presets_list,
    "performance": performance_tables.performance,
    "target": performance_tables.target,
    "full-size": full_size,
    "attention": attention,
    "parallel": parallel,
    "quality": demo_tables.quality,
    "tea-cache": demo_tables.tea_cache,
    "video": demo_tables.video,
    "quantize": quantize_tables.quantize,
    "plans": plan_tables.plans,
    "plans-elsewhere": plan_tables.plans_elsewhere,
    "few-steps": plan_tables.few_steps,
    "schedules": plan_tables.schedules,
    "progressive": progressive_tables.progressive,
    "memory": demo_tables.memory,
    "overhead": cost_tables.overhead,
    "costs": cost_tables.costs,
    "attention-overhead": cost_tables.attention_overhead,
    "profiler": cost_tables.profiler,
    "families": engine_tables.families,
    "published": engine_tables.published,
    "environment": engine_tables.environment,
}


def filled(text: str, tables: Mapping[str, Callable[[], str]] = TABLES) -> str:
    """The text with every table between its markers replaced.

    Raises
    ------
    ValueError
        When a marker names no table or is not closed.
    """
    for name in re.findall(r"<!-- table:([\w-]+) -->", text):
        begin, end = f"<!-- table:{name} -->", f"<!-- /table:{name} -->"
        if name not in tables:
            raise ValueError(f"{begin} names no table; choose of {', '.join(tables)}.")
        head, _, rest = text.partition(begin)
        _, closed, tail = rest.partition(end)
        if not closed:
            raise ValueError(f"{begin} is not closed by {end}.")
        text = f"{head}{begin}\n{tables[name]()}\n{end}{tail}"
    return text


def outdated(files: Sequence[Path] = FILES) -> dict[Path, str]:
    """Files whose tables differ from what they should say, with the text that they should have."""
    texts = {path: path.read_text(encoding="utf-8") for path in files}
    wanted = {path: filled(text) for path, text in texts.items()}
    return {path: text for path, text in wanted.items() if text != texts[path]}


def main() -> int:
    parser = argparse.ArgumentParser(description="Writes every table of the documentation.")
    parser.add_argument("--check", action="store_true", help="change nothing, fail if outdated")
    add_arguments(parser)
    options = parser.parse_args()
    if not all(map(find_spec, NEEDS)):
        try:
            ready = ensure_environment(
                options.host_version, options.comfyui, options.python, needs=NEEDS
            )
        except SetupError as error:
            say(f"error: {error}")
            return 2
        return subprocess.run([str(ready.python), __file__, *sys.argv[1:]]).returncode
    stale = outdated()
    for path, text in stale.items():
        name = path.relative_to(ROOT)
        if options.check:
            say(f"{name} is not up to date: run python3 benchmarks/tables/write_tables.py")
        else:
            path.write_text(text, encoding="utf-8")
            say(f"Wrote {name}")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
