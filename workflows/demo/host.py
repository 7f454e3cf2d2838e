"""Find ComfyUI for the scripts of this folder and put it on the import path."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

FLAGS = ["--cpu", "--use-pytorch-cross-attention"]


def add_host_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--comfyui PATH``, which defaults to ``COMFYUI_PATH``."""
    parser.add_argument(
        "--comfyui",
        default=os.environ.get("COMFYUI_PATH"),
        help="ComfyUI's folder (default: $COMFYUI_PATH)",
    )


def import_host(path: str | None) -> None:
    """Make ``comfy`` and ComfyUI's other modules importable, set to compute on the CPU."""
    if not path or not (Path(path) / "comfy").is_dir():
        sys.exit("Say where ComfyUI is: --comfyui PATH or COMFYUI_PATH=PATH")
    sys.path.insert(0, str(Path(path).resolve()))
    # The host reads its own command line at import; ours is not meant for it.
    argv, sys.argv = sys.argv, [sys.argv[0], *FLAGS]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.cli_args

    sys.argv = argv
