"""Calibrations kept in the host's user folder, by the identity of a checkpoint."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ..errors import AccelerationError
from ..families import TeaCacheFit
from ..policies.calibration import Calibration

log = logging.getLogger("dit_acceleration")


def checkpoint_identity(network: Any) -> str:
    """A fingerprint of a network's weights that LoRA does not change.

    Only vectors (norms, biases) are looked at: few LoRA formats touch them, they are small, and
    training always moves them. They are taken in the dtype that the model computes them in: where
    the host pages weights in as they are used, a parameter has the file's dtype until then.
    """
    network = getattr(network, "_orig_mod", network)
    digest = hashlib.sha256(f"{type(network).__module__}.{type(network).__qualname__}".encode())
    vectors = sorted(_vectors(network))
    for name, parameter in vectors[:: max(len(vectors) // 32, 1)]:
        values = parameter[:64].float().cpu().numpy()
        digest.update(f"{name}{tuple(parameter.shape)}".encode() + values.tobytes())
    return digest.hexdigest()[:24]


def _vectors(network: Any) -> Iterator[tuple[str, torch.Tensor]]:
    for path, module in network.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim == 1:
                # The host notes this dtype on every module that it makes.
                dtype = getattr(module, f"{name}_comfy_model_dtype", None) or parameter.dtype
                yield f"{path}.{name}".removeprefix("."), parameter.detach().to(dtype)


def calibration_file(identity: str) -> Path:
    """Where the calibration of a checkpoint is kept, in the host's user folder."""
    import folder_paths

    return (
        Path(folder_paths.get_user_directory()) / "dit_acceleration" / f"teacache_{identity}.json"
    )


def save_calibration(calibration: Calibration) -> Path:
    """Write a calibration where ``stored_calibration`` finds it."""
    path = calibration_file(calibration.identity)
    write_whole(path, json.dumps(calibration.as_dict(), indent=1))
    return path


def write_whole(path: Path, text: str) -> None:
    """Write a file; a half-written one never takes the place of a whole one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def stored_calibration(identity: str) -> Calibration | None:
    """What Calibrate TeaCache stored for a checkpoint, or None."""
    path = calibration_file(identity)
    if not path.exists():
        return None
    try:
        return Calibration.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (AccelerationError, json.JSONDecodeError, KeyError) as error:
        log.warning("The TeaCache calibration %s is ignored: %s", path.name, error)
        return None


def calibrated_fit(network: Any) -> TeaCacheFit | None:
    """The coefficients that were calibrated for this network, or None."""
    calibration = stored_calibration(checkpoint_identity(network))
    return calibration.fit() if calibration is not None else None
