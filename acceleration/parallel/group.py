"""Ranks that share an evaluation, and what goes between them, counted.

The counts are what a rank hands over to others: a ring moves as much for a gather as everybody
sending to everybody does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from ..lack_of_memory import is_out_of_memory
from ..timing import Span

MOST_SPANS = 4096
"""Spans that wait to be read; on CUDA each holds two events."""


@contextmanager
def blaming_peers() -> Iterator[None]:
    """Mark what fails inside as another rank's doing, as it has left; see ``peers_doing``."""
    try:
        yield
    except RuntimeError as error:
        # The same error goes on, so that it is the model's to whoever asks where it comes from.
        error.of_a_peer = not is_out_of_memory(error)  # type: ignore[attr-defined]
        raise


def peers_doing(error: BaseException) -> bool:
    """Whether an error is no more than the end of an exchange with a rank that had failed."""
    return getattr(error, "of_a_peer", False)


@dataclass
class Traffic:
    """What one rank sent in a run."""

    bytes: int = 0
    calls: int = 0
    seconds: float = 0.0
    """In exchanges: the transfer, and waiting for whoever comes later."""
    _spans: list[Span] = field(default_factory=list)

    @contextmanager
    def exchange(self, device: torch.device, size: int) -> Iterator[None]:
        """Count what happens inside."""
        span = Span(device)
        with blaming_peers():
            yield
        self.bytes += size
        self.calls += 1
        self._spans.append(span.stop())
        if len(self._spans) > MOST_SPANS:
            self.settle()

    def reset(self) -> None:
        """A run begins."""
        self.bytes, self.calls, self.seconds = 0, 0, 0.0
        self._spans.clear()

    def settle(self) -> None:
        """Read the times; on CUDA this waits for the device."""
        self.seconds += sum(span.seconds() for span in self._spans)
        self._spans.clear()


class Group:
    """Some ranks of one ``torch.distributed`` world, seen by one of them.

    Parameters
    ----------
    rank, size
        Which of how many.
    process_group
        As torch has it; None is the whole world.
    traffic
        Is told what this rank sends.
    """

    def __init__(
        self, rank: int, size: int, process_group: Any = None, traffic: Traffic | None = None
    ) -> None:
        self.rank, self.size = rank, size
        self._group = process_group
        self.traffic = traffic if traffic is not None else Traffic()

    def gather(self, tensor: torch.Tensor, dim: int, sizes: Sequence[int]) -> torch.Tensor:
        """The parts of all ranks along ``dim``, of which rank i has ``sizes[i]``.

        They are padded to the longest on the way: not every backend takes unequal parts.
        """
        dim %= tensor.ndim
        most, own = max(sizes), tensor.shape[dim]
        padded = tensor.movedim(dim, 0)
        if own < most:
            padded = torch.cat([padded, padded.new_zeros((most - own, *padded.shape[1:]))])
        padded = padded.contiguous()
        out = padded.new_empty((self.size * most, *padded.shape[1:]))
        sent = padded.numel() * padded.element_size() * (self.size - 1)
        with self.traffic.exchange(tensor.device, sent):
            dist.all_gather_into_tensor(out, padded, group=self._group)
        if min(sizes) < most:
            out = torch.cat([part[:n] for part, n in zip(out.split(most), sizes, strict=True)])
        return out.movedim(0, dim)

    def swap(
        self, pieces: Sequence[torch.Tensor], sizes: Sequence[int]
    ) -> tuple[torch.Tensor, ...]:
        """Give piece i to rank i, and get from rank i so many elements as ``sizes[i]`` says."""
        given = [piece.numel() for piece in pieces]
        buffer = torch.cat([piece.reshape(-1) for piece in pieces])
        out = buffer.new_empty(sum(sizes))
        sent = (sum(given) - given[self.rank]) * buffer.element_size()
        with self.traffic.exchange(buffer.device, sent):
            dist.all_to_all_single(out, buffer, list(sizes), given, group=self._group)
        return out.split(list(sizes))

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over ranks, in place. Not counted: a few numbers an evaluation."""
        if self.size > 1:
            with blaming_peers():
                dist.all_reduce(values, group=self._group)
        return values
