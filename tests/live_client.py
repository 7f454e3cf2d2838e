"""A client of the server's websocket that keeps what it was told, as a page without JavaScript."""

from __future__ import annotations

import asyncio
import struct
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import aiohttp

from comfyui_server import Server

TEXT = 3
"""The host's number for progress text among its binary messages."""


class LiveClient:
    """Listens in a thread of its own while a ``with`` block lasts.

    Attributes
    ----------
    events
        ``(type, data)`` of every JSON message, in order of arrival.
    texts
        ``(node id, text)`` of every progress text.
    """

    def __init__(self, server: Server, client_id: str | None = None) -> None:
        self._url = f"{server.url}/ws?clientId={client_id or server.client_id}"
        self.events: list[tuple[str, Any]] = []
        self.texts: list[tuple[str, str]] = []
        self._open = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> LiveClient:
        self._thread.start()
        assert self._open.wait(30), "the server's websocket did not open"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._task is not None
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._task = self._loop.create_task(self._listen())
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        finally:
            self._loop.close()

    async def _listen(self) -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(self._url) as socket:
            self._open.set()
            async for message in socket:
                if message.type == aiohttp.WSMsgType.TEXT:
                    found = message.json()
                    self.events.append((found["type"], found.get("data")))
                elif message.type == aiohttp.WSMsgType.BINARY:
                    self._take_binary(message.data)

    def _take_binary(self, data: bytes) -> None:
        kind, length = struct.unpack_from(">II", data)
        if kind == TEXT:
            node, text = data[8 : 8 + length], data[8 + length :]
            self.texts.append((node.decode(), text.decode()))

    def of(self, kind: str) -> list[Any]:
        """The data of every message of a type so far."""
        return [data for name, data in list(self.events) if name == kind]

    def wait(self, until: Callable[[], bool], seconds: float = 60) -> None:
        """Wait until something was told."""
        end = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < end, f"not told in {seconds:g} s: {self.events[-3:]}"
            time.sleep(0.02)
