"""Starts a real ComfyUI server headless and talks to it over HTTP.

Only this pack and its demo pack are loaded, and whatever the server writes (outputs, previews,
user settings, its database) goes to a temporary folder. Only the standard library is used.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from comfyui_environment import Environment

START_SECONDS = 240.0
STOP_SECONDS = 10.0
# Short against a sampling run, long against the work of answering.
POLL_SECONDS = 0.03

Graph = Mapping[str, Mapping[str, Any]]
Tick = Callable[[float], None]


class ServerError(RuntimeError):
    """The server did not start, refused a prompt, or failed while running it."""


class Server:
    """A ComfyUI server on a free port of this machine, stopped at the end of a ``with`` block.

    Parameters
    ----------
    environment
        Which ComfyUI, and where it finds this pack.
    device
        ``"cpu"``, or ``"auto"`` for what ComfyUI chooses.
    folder
        Where outputs and logs go; a temporary folder that is deleted afterwards by default.
    on_wait
        Called about once a second while the server starts, with the seconds so far.
    """

    def __init__(
        self,
        environment: Environment,
        device: str = "cpu",
        folder: Path | None = None,
        on_wait: Tick | None = None,
        port: int = 0,
    ) -> None:
        self.environment = environment
        self.device = device
        self.on_wait = on_wait
        self.port = port
        self.keep_folder = folder is not None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="dit_acceleration_"))
        self.log_file = self.folder / "server.log"
        self.client_id = uuid.uuid4().hex
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Server:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = self.port or free_port()
        self._log = self.log_file.open("wb")
        self._process = subprocess.Popen(
            self.command(),
            cwd=self.environment.comfyui,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            # Its own process group: a Ctrl-C here must not reach it before it is stopped in order.
            start_new_session=os.name != "nt",
            preexec_fn=die_with_parent if sys.platform == "linux" else None,
        )
        started = told = time.monotonic()
        while True:
            if not self.running:
                raise ServerError(f"ComfyUI ended while starting.\n{self.log_tail()}")
            with contextlib.suppress(ServerError, OSError):
                self.get("/system_stats", timeout=2)
                return
            now = time.monotonic()
            if now - started > START_SECONDS:
                raise ServerError(
                    f"ComfyUI did not answer in {START_SECONDS:.0f} s.\n{self.log_tail()}"
                )
            if self.on_wait and now - told >= 1:
                told = now
                self.on_wait(now - started)
            time.sleep(POLL_SECONDS)

    def command(self) -> list[str]:
        """The command line that starts the host, understood by every pinned version."""
        environment = self.environment
        folders = [
            part
            for name in ("input", "output", "temp", "user")
            for part in (f"--{name}-directory", str(self.made_folder(name)))
        ]
        command = [str(environment.python), "main.py", "--listen", "127.0.0.1"]
        command += ["--port", str(self.port), "--disable-auto-launch", "--disable-api-nodes"]
        command += ["--preview-method", "none", *folders]
        command += ["--database-url", f"sqlite:///{(self.folder / 'comfyui.db').as_posix()}"]
        if self.device == "cpu":
            command.append("--cpu")
        front_end = os.environ.get("DIT_ACCEL_FRONT_END")
        if front_end:
            command += ["--front-end-root", front_end]
        if environment.extra_custom_nodes:
            # JSON is YAML, and quotes a path safely.
            extra = {"dit_acceleration": {"custom_nodes": str(environment.extra_custom_nodes)}}
            config = self.folder / "extra_model_paths.yaml"
            config.write_text(json.dumps(extra), encoding="utf-8")
            command += ["--extra-model-paths-config", str(config)]
        command += ["--disable-all-custom-nodes", "--whitelist-custom-nodes", *environment.packs]
        return command

    def made_folder(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def stop(self) -> None:
        """End the server and what it started, and delete its temporary folder."""
        process, self._process = self._process, None
        if process is not None:
            end_process(process)
        if self._log is not None:
            self._log.close()
            self._log = None
        if not self.keep_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def log_text(self) -> str:
        if not self.log_file.exists():
            return ""
        text = self.log_file.read_text(encoding="utf-8", errors="replace")
        return re.sub(r"\x1b\[[0-9;]*m", "", text)  # Newer hosts colour their log.

    def log_tail(self, lines: int = 40) -> str:
        return "\n".join(self.log_text().splitlines()[-lines:])

    def get(self, path: str, timeout: float = 60) -> Any:
        """GET a JSON answer."""
        return json.loads(self.request(path, timeout=timeout))

    def post(self, path: str, body: Any, timeout: float = 60) -> Any:
        """POST JSON; returns the JSON answer, or None for an empty one."""
        answer = self.request(path, json.dumps(body).encode(), timeout)
        return json.loads(answer) if answer else None

    def request(self, path: str, body: bytes | None = None, timeout: float = 60) -> bytes:
        request = urllib.request.Request(
            self.url + path, data=body, headers={"Content-Type": "application/json"}
        )
        # A proxy set for downloads must not be asked for this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=timeout) as answer:
                content: bytes = answer.read()
                return content
        except urllib.error.HTTPError as error:
            detail = error.read().decode("utf-8", "replace")
            raise ServerError(refusal(path, error.code, detail)) from error
        except OSError as error:
            raise ServerError(f"ComfyUI does not answer on {self.url}: {error}") from error

    def object_info(self) -> dict[str, Any]:
        """The description of every node class, as the web page gets it."""
        info: dict[str, Any] = self.get("/object_info")
        return info

    def submit(self, graph: Graph) -> str:
        """Queue a prompt in API format and return its id.

        Raises
        ------
        ServerError
            If any of its nodes is refused. The host itself would run the rest of the prompt.
        """
        answer = self.post("/prompt", {"prompt": graph, "client_id": self.client_id})
        prompt_id: str = answer["prompt_id"]
        if problems := node_problems(answer.get("node_errors") or {}):
            self.post("/queue", {"delete": [prompt_id]})
            self.post("/interrupt", {"prompt_id": prompt_id})
            raise ServerError("; ".join(problems))
        return prompt_id

    def interrupt(self) -> None:
        """Cancel the running prompt, like the Cancel button."""
        self.post("/interrupt", {})

    def wait(
        self, prompt_id: str, timeout: float = 600, on_wait: Tick | None = None
    ) -> dict[str, Any]:
        """Wait until a prompt has ended in any way and return its entry of the history."""
        started = told = time.monotonic()
        while True:
            history = self.get(f"/history/{prompt_id}")
            if prompt_id in history:
                entry: dict[str, Any] = history[prompt_id]
                return entry
            now = time.monotonic()
            if not self.running:
                raise ServerError(f"ComfyUI ended while running a prompt.\n{self.log_tail()}")
            if now - started > timeout:
                raise ServerError(f"A prompt did not end in {timeout:.0f} s.\n{self.log_tail()}")
            if on_wait and now - told >= 1:
                told = now
                on_wait(now - started)
            time.sleep(POLL_SECONDS)

    def run(
        self, graph: Graph, timeout: float = 600, on_wait: Tick | None = None
    ) -> dict[str, dict[str, list[Any]]]:
        """Run a prompt and return what its output nodes showed, by node id.

        Raises
        ------
        ServerError
            If the prompt is refused, fails, or is cancelled; with the node and the reason.
        """
        entry = self.wait(self.submit(graph), timeout, on_wait)
        failure = failure_of(entry)
        if failure:
            raise ServerError(f"{failure}\n{self.log_tail()}")
        outputs: dict[str, dict[str, list[Any]]] = entry["outputs"]
        return outputs

    def file(self, item: Mapping[str, str]) -> Path:
        """The path of a file that an output node named (``filename``, ``subfolder``, ``type``)."""
        base = self.folder / item.get("type", "output")
        if item.get("type") == "temp":
            base = base / "temp"  # The host puts its folder into the one it is given.
        return base / item.get("subfolder", "") / item["filename"]


def failure_of(entry: Mapping[str, Any]) -> str | None:
    """The reason why a prompt of the history did not succeed, or None."""
    status = entry.get("status") or {}
    for kind, message in status.get("messages", []):
        if kind == "execution_error":
            return (
                f"{message.get('node_type')} (node {message.get('node_id')}): "
                f"{message.get('exception_message', '').strip()}"
            )
        if kind == "execution_interrupted":
            return f"The prompt was cancelled at {message.get('node_type')}."
    return None if status.get("completed", True) else "The prompt did not complete."


def refusal(path: str, code: int, detail: str) -> str:
    """One readable text from the host's answer to a refused request."""
    try:
        answer = json.loads(detail)
    except ValueError:
        return f"{path}: HTTP {code}"
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        return f"{path}: HTTP {code}: {detail[:500]}"
    first = f"{error.get('message')} {error.get('details', '')}".strip()
    return "; ".join([first, *node_problems(answer.get("node_errors") or {})])


def node_problems(node_errors: Mapping[str, Any]) -> list[str]:
    """A readable text for each input that the host refused."""
    return [
        f"{node.get('class_type')} (node {key}): {error.get('message')}: {error.get('details')}"
        for key, node in node_errors.items()
        for error in node.get("errors", [])
    ]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def die_with_parent() -> None:
    """Ask Linux to end this process when the one that started it was killed."""
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def end_process(process: subprocess.Popen[bytes]) -> None:
    """End a process group: politely first, then for good."""
    for gently in (True, False):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.name == "nt":
                process.terminate()
            else:
                os.killpg(process.pid, signal.SIGTERM if gently else signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=STOP_SECONDS)
            if gently and os.name != "nt":
                continue  # The leader is gone; make sure that its children are.
            return
