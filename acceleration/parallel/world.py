"""The ranks of one model as a ``torch.distributed`` world, which may fall apart and meet again."""

from __future__ import annotations

import datetime
from typing import Any

import torch
import torch.distributed as dist

from .group import Group, Traffic


class World:
    """One rank's membership.

    A collective that failed on one rank leaves the others in the middle of theirs. So whoever fails
    leaves, which the others notice, and all meet again in another *generation*.

    Parameters
    ----------
    rank, size
        Which of how many.
    device
        NCCL serves CUDA, gloo all else.
    """

    def __init__(self, rank: int, size: int, device: torch.device) -> None:
        self.rank, self.size = rank, size
        self._backend = "nccl" if device.type == "cuda" else "gloo"
        self._groups: dict[tuple[int, ...], Any] = {}
        self._server: Any = None
        self.traffic = Traffic()

    def serve(self, address: str) -> int:
        """Open the place where ranks of several computers meet, at a free port of this one."""
        self._server = dist.TCPStore(address, 0, None, True, wait_for_workers=False)
        return int(self._server.port)

    def join(self, place: str, generation: int, limit: float) -> None:
        """Meet the others.

        Parameters
        ----------
        place
            A file that all can write (ranks of one computer), or ``host:port``.
        limit
            Seconds that any wait for another rank may take, now and later.
        """
        self.leave()
        wait = datetime.timedelta(seconds=limit)
        host, _, port = place.rpartition(":")
        store: Any = (
            dist.TCPStore(host, int(port), None, False, wait)
            if host and port.isdigit()
            else dist.FileStore(f"{place}.{generation}", self.size)
        )
        dist.init_process_group(
            self._backend,
            store=dist.PrefixStore(str(generation), store),
            rank=self.rank,
            world_size=self.size,
            timeout=wait,
        )

    def leave(self) -> None:
        """Be no member any more; whoever waits for this rank hears of it."""
        self._groups.clear()
        if not dist.is_initialized():
            return
        abort = getattr(dist.distributed_c10d, "_abort_process_group", None)
        if self._backend == "nccl" and abort is not None:
            abort()  # Its kernels may be waiting for ranks that have left.
        else:
            dist.destroy_process_group()

    def group(self, ranks: tuple[int, ...]) -> Group | None:
        """Some of the ranks; None for one that is not among them. All ranks must ask alike."""
        if ranks not in self._groups:
            whole = len(ranks) == self.size
            single = len(ranks) == 1
            self._groups[ranks] = None if whole or single else dist.new_group(list(ranks))
        if self.rank not in ranks:
            return None
        return Group(ranks.index(self.rank), len(ranks), self._groups[ranks], self.traffic)
