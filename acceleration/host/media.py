"""Pictures and videos that nodes have saved, read again from the host's folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageSequence

from ..errors import AccelerationError, shown

MOST_FRAMES = 32
"""Of a video, spread evenly: enough to judge it, and seconds instead of minutes."""

PICTURES = (".png", ".webp", ".jpg", ".jpeg", ".gif", ".bmp", ".tiff", ".avif")
VIDEOS = (".mp4", ".webm", ".mkv", ".mov")


def saved(outputs: Mapping[str, Any], nodes: list[str]) -> Iterator[tuple[str, Mapping[str, str]]]:
    """What nodes saved that can be looked at, each under a name that repeats from run to run.

    Parameters
    ----------
    outputs
        Of the host's history: by node id, lists of files under keys such as ``images``.
    nodes
        Ids of the nodes that count.
    """
    for node in nodes:
        for key, items in outputs.get(node, {}).items():
            for number, item in enumerate(items if isinstance(items, list) else []):
                if isinstance(item, dict) and _ending(item) in PICTURES + VIDEOS:
                    yield f"{node}/{key}/{number}", item


def _ending(item: Mapping[str, Any]) -> str:
    return Path(str(item.get("filename", ""))).suffix.lower()


def file_of(item: Mapping[str, str]) -> Path:
    """The file of ``filename``, ``subfolder`` and ``type``, which never lies outside the host's.

    Raises
    ------
    AccelerationError
        When it does, or is gone.
    """
    import folder_paths

    base = folder_paths.get_directory_by_type(str(item.get("type", "output")))
    if base is not None:
        folder = Path(base).resolve()
        path = (folder / str(item.get("subfolder", "")) / str(item["filename"])).resolve()
        if path.is_relative_to(folder) and path.is_file():
            return path
    raise AccelerationError(
        f"The saved file {shown(item.get('filename'))} cannot be read any more: leave the output "
        "folder as it is until the comparison is over."
    )


def frames_of(item: Mapping[str, str]) -> torch.Tensor:
    """The pictures of a saved file, ``[N, H, W, 3]`` uint8; of long videos not every frame."""
    path = file_of(item)
    frames = list(_video(path) if path.suffix.lower() in VIDEOS else _pictures(path))
    if not frames:
        raise AccelerationError(f"The saved file {shown(path.name)} holds no picture.")
    return torch.from_numpy(np.stack(frames))


def _pictures(path: Path) -> Iterator[np.ndarray]:
    with Image.open(path) as file:
        wanted = _spread(getattr(file, "n_frames", 1))
        for number, frame in enumerate(ImageSequence.Iterator(file)):
            if number in wanted:
                yield np.asarray(frame.convert("RGB"))


def _video(path: Path) -> Iterator[np.ndarray]:
    # The host's own reader of videos.
    import av

    with av.open(str(path)) as container:
        count = container.streams.video[0].frames or sum(1 for _ in container.decode(video=0))
        container.seek(0)
        wanted = _spread(count)
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                yield frame.to_ndarray(format="rgb24")


def _spread(count: int) -> set[int]:
    """Numbers of the frames that are looked at."""
    if count <= MOST_FRAMES:
        return set(range(count))
    return {round(n * (count - 1) / (MOST_FRAMES - 1)) for n in range(MOST_FRAMES)}
