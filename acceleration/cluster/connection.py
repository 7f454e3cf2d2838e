"""Reaching Ray: one of our own on this computer, or one that runs."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import socket
import sys
from typing import Any

from ..errors import AccelerationError, MissingPackageError

PACKAGE = "ray>=2.40"
FEATURE = "Split Across GPUs"
REACHED_WITHIN = 10.0
"""Seconds in which a cluster must answer."""
MOST_STORE, LEAST_STORE, STORE_SHARE = 4 * 2**30, 80 * 2**20, 0.8
"""Bytes of shared memory for what goes to ranks and comes back (latents, prompts and, largest,
control), and how much of what is free they may be."""
HERE = "127.0.0.1"
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""With which a client begins HTTP/2, Ray's protocol (RFC 9113, 3.4), and its empty settings. The
server's first frame holds its own: ``SETTINGS`` is the kind of frame, in byte 3."""
SETTINGS = 4


def is_installed() -> bool:
    """Whether Ray can be imported, without importing it."""
    return importlib.util.find_spec("ray") is not None


def require_installed() -> None:
    """Raise AccelerationError when there is no Ray here, or no way to have it.

    Ray of several GPUs is for Linux; NCCL is not made for Windows.
    """
    if sys.platform == "win32":
        raise AccelerationError(
            f"{FEATURE} needs NCCL, which there is not on Windows: use ComfyUI's node MultiGPU CFG "
            "Split, or run ComfyUI in WSL2."
        )
    if not is_installed():
        raise MissingPackageError(FEATURE, PACKAGE)


def connect(address: str, processors: int) -> Any:
    """Ray, connected: to the cluster at an address, or to one of our own.

    Our own listens on the loopback interface only, has no dashboard and reports nothing to anybody.
    Whoever is connected already stays so.

    Raises
    ------
    AccelerationError
        When the address does not answer, or a connection is there to somewhere else.
    """
    require_installed()
    loaded = sys.modules.get("ray")
    if loaded is not None and loaded.is_initialized():
        return loaded
    if address:
        _require_answer(address)
    # Ray reads these when it is imported, so what may fail has been looked at before.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Without it Ray hides the GPUs of this very process, which decodes pictures on one.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if not address:
        # Without it Ray takes the computer's outward address in place of loopback and listens to
        # all; what it is named after are systems on which this is how it is by itself.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        # How long Ray's own agents look for a Ray that ended with this process: a minute else.
        os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "10")
    import ray

    options: dict[str, Any] = {
        "log_to_driver": False,
        "configure_logging": False,
        "logging_level": logging.ERROR,
        "namespace": "dit_acceleration",
    }
    if address:
        options["address"] = address
    else:
        options |= {
            # Not one that somebody else has started on this computer.
            "address": "local",
            "num_cpus": processors,
            "include_dashboard": False,
            "object_store_memory": _store_bytes(),
            "_node_ip_address": HERE,
        }
    try:
        ray.init(**options)
    except (Exception, SystemExit) as error:
        # Ray would end this process where a cluster has gone in the meantime.
        where = f"at {address}" if address else "on this computer"
        raise AccelerationError(
            f"Ray could not be reached {where} ({_first_line(error)}): check ray_address, that "
            "both have the same version of Ray and Python and the same RAY_AUTH_TOKEN, and that "
            "/dev/shm has room."
        ) from error
    if not address and ray.util.get_node_ip_address() != HERE:
        ray.shutdown()
        raise AccelerationError(
            "another pack had loaded Ray, which would listen to other computers now: set the "
            "variable RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER to 0 before ComfyUI starts, or name a "
            "cluster in ray_address."
        )
    return ray


def _store_bytes() -> int:
    try:
        free = shutil.disk_usage("/dev/shm").free
    except OSError:
        return LEAST_STORE
    return int(min(max(STORE_SHARE * free, LEAST_STORE), MOST_STORE))


def _require_answer(address: str) -> None:
    """Ask for an answer first: Ray itself waits for minutes, also where something else answers."""
    host, _, port = address.rpartition(":")
    if address.startswith("ray://") or not host or not port.isdigit():
        raise AccelerationError(
            f"ray_address is {address!r}: give the host and port of the cluster's head, such as "
            "192.168.0.5:6379 (ComfyUI itself must run on one of its computers)."
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), REACHED_WITHIN) as line:
            line.sendall(GREETING)
            answer = line.recv(9)
    except OSError as error:
        raise AccelerationError(
            f"no Ray cluster answered at {address} within {REACHED_WITHIN:.0f} s "
            f"({_first_line(error)}): start one there with `ray start --head`, or leave "
            "ray_address empty."
        ) from error
    encrypted = os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true")
    if not encrypted and answer[3:4] != bytes((SETTINGS,)):
        raise AccelerationError(
            f"what answers at {address} is no Ray cluster: give the port that `ray start --head` "
            "has printed, mostly 6379, or leave ray_address empty."
        )


def gpus_of(ray: Any) -> int:
    """How many GPUs the cluster has."""
    return int(ray.cluster_resources().get("GPU", 0))


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:160]
