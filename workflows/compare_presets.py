"""Proves the presets on your own model: ``python3 workflows/compare_presets.py WORKFLOW.json``.

Queues a workflow in API format (in the page: File, Export (API)) on a running ComfyUI once for each
preset of its Performance Mode, with the same seed and nothing else changed, and writes a picture, a
table and all figures: ``presets.png``, ``presets.md`` and ``presets.json``. Only the standard
library is used; the server compares the pictures itself, so it needs this pack.

Ctrl-C, and Cancel in the page, end it; what others have queued is never touched.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PROMPTS = "/dit_acceleration/presets/prompts"
RESULT = "/dit_acceleration/presets/result"
POLL_SECONDS = 0.5
# Of stopping a run, which a step of a large model may hold up.
MOST_TRIES = 120
# Measuring many frames of a video takes a while.
ANSWER_SECONDS = 900


class ComparisonError(RuntimeError):
    """The comparison cannot go on; one sentence says why."""


class Server:
    """A running ComfyUI.

    Parameters
    ----------
    address
        Such as ``127.0.0.1:8188`` or ``https://host/comfyui``.
    """

    def __init__(self, address: str) -> None:
        self.url = (address if "://" in address else f"http://{address}").rstrip("/")
        self._client = uuid.uuid4().hex
        # A proxy set for downloads must not be asked for a machine of one's own.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(self, path: str, body: Any = None) -> bytes:
        """The answer to a GET, or with a body to a POST of JSON."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data=data, headers=headers)
        try:
            with self._opener.open(request, timeout=ANSWER_SECONDS) as answer:
                found: bytes = answer.read()
                return found
        except urllib.error.HTTPError as error:
            raise ComparisonError(refusal(path, error)) from None
        except OSError as error:
            raise ComparisonError(f"ComfyUI does not answer at {self.url}: {error}.") from None

    def json(self, path: str, body: Any = None) -> Any:
        return json.loads(self.ask(path, body))

    def file(self, item: dict[str, str]) -> bytes:
        """A file that the server has saved."""
        return self.ask(f"/view?{urllib.parse.urlencode(item)}")

    def run(self, prompt: dict[str, Any]) -> str:
        """Queue a prompt, wait until it has ended well, and return its id.

        Whatever ends the waiting takes this prompt, and no other, from the queue.
        """
        answer = self.json("/prompt", {"prompt": prompt, "client_id": self._client})
        prompt_id: str = answer["prompt_id"]
        try:
            if answer.get("node_errors"):
                raise ComparisonError(f"ComfyUI refuses the workflow: {answer['node_errors']}")
            self._wait(prompt_id)
        except BaseException:
            with contextlib.suppress(ComparisonError):
                self.cancel(prompt_id)
            raise
        return prompt_id

    def _wait(self, prompt_id: str) -> None:
        while True:
            # The queue first: a prompt leaves it before it stands in the history.
            waits = self._in_queue(prompt_id)
            entry = self.json(f"/history/{prompt_id}").get(prompt_id)
            if entry is not None:
                return require_success(entry)
            if not waits:
                time.sleep(POLL_SECONDS)
                if prompt_id not in self.json(f"/history/{prompt_id}"):
                    raise ComparisonError("Somebody took the run from the queue: stopped.")
            time.sleep(POLL_SECONDS)

    def cancel(self, prompt_id: str) -> None:
        """Take a prompt from the queue, and stop it if it is the one that runs.

        The host forgets an interrupt that comes while a run only begins, so it is asked until the
        run has left the queue.
        """
        for _ in range(MOST_TRIES):
            self.ask("/queue", {"delete": [prompt_id]})
            self.ask("/interrupt", {"prompt_id": prompt_id})
            if not self._in_queue(prompt_id):
                return
            time.sleep(POLL_SECONDS)

    def _in_queue(self, prompt_id: str) -> bool:
        queue = self.json("/queue")
        return any(item[1] == prompt_id for items in queue.values() for item in items)


def refusal(path: str, error: urllib.error.HTTPError) -> str:
    """One sentence from the answer to a request that was refused."""
    if error.code in (404, 405) and path in (PROMPTS, RESULT):
        return (
            "This ComfyUI has no ComfyUI-DiT-Acceleration that compares presets: install or update "
            "the pack there and restart it."
        )
    try:
        answer = json.loads(error.read())
        told = answer["error"]
    except (ValueError, KeyError, TypeError):
        return f"ComfyUI answers {path} with HTTP {error.code}."
    if isinstance(told, str):
        return told
    nodes = [
        f"{node.get('class_type')} (node {key}): {problem.get('message')}: {problem.get('details')}"
        for key, node in (answer.get("node_errors") or {}).items()
        for problem in node.get("errors", [])
    ]
    return "; ".join([f"{told.get('message')} {told.get('details', '')}".strip(), *nodes])


def require_success(entry: dict[str, Any]) -> None:
    """Raise ComparisonError with the reason unless a prompt has ended well."""
    status = entry.get("status") or {}
    for kind, message in status.get("messages", []):
        if kind == "execution_error":
            raise ComparisonError(
                f"{message.get('node_type')} (node {message.get('node_id')}): "
                f"{str(message.get('exception_message')).strip()}"
            )
        if kind == "execution_interrupted":
            raise ComparisonError("Somebody canceled the run: stopped.")
    if not status.get("completed", True):
        raise ComparisonError("The run did not complete.")


def compare(server: Server, graph: Any, presets: Sequence[str] | None) -> dict[str, Any]:
    """Run a graph with every preset; the server's result."""
    runs = server.json(PROMPTS, {"prompt": graph, "presets": presets})["runs"]
    ended = []
    for number, run in enumerate(runs):
        say(f"{number + 1} of {len(runs)}: {run['name']} …")
        started = time.monotonic()
        prompt_id = server.run(run["prompt"])
        say(f"  {time.monotonic() - started:.1f} s, waiting in the queue and decoding included")
        ended.append({"name": run["name"], "prompt_id": prompt_id})
    say("Comparing the pictures …")
    # The first run only warmed up.
    found: dict[str, Any] = server.json(RESULT, {"runs": ended[1:]})
    return found


def write(server: Server, result: dict[str, Any], folder: Path) -> None:
    """Write the picture, the table and the figures."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "presets.png").write_bytes(server.file(result.pop("picture")))
    (folder / "presets.md").write_text(result.pop("markdown"), encoding="utf-8")
    result.pop("table")
    text = json.dumps(result, indent=2, ensure_ascii=False)
    (folder / "presets.json").write_text(f"{text}\n", encoding="utf-8")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Runs a workflow with every preset of Performance Mode and compares them."
    )
    parser.add_argument("workflow", type=Path, help="in API format, with a Performance Mode")
    parser.add_argument(
        "--server",
        default="127.0.0.1:8188",
        metavar="ADDRESS",
        help="of the running ComfyUI (default: %(default)s)",
    )
    parser.add_argument(
        "--presets",
        nargs="+",
        metavar="NAME",
        help="of quality, balanced, fast, ultra (default: all); off is always run",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("presets_output"),
        metavar="DIR",
        help="folder for presets.png, .md and .json (default: %(default)s)",
    )
    return parser.parse_args()


def main() -> int:
    options = parse()
    try:
        graph = json.loads(options.workflow.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ComparisonError(f"{options.workflow} cannot be read: {error}.") from None
    server = Server(options.server)
    result = compare(server, graph, options.presets)
    print(result["markdown"])
    write(server, result, options.output)
    say(f"Wrote presets.png, presets.md and presets.json to {options.output}.")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ComparisonError as error:
        say(f"error: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        say("Stopped. Its run was taken from the queue; nothing else was touched.")
        sys.exit(130)
