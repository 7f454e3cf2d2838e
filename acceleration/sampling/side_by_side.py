"""Threads that evaluate branches of one prediction at once, each on a GPU of its own (ComfyUI's
MultiGPU CFG Split): they decide alike, as the step takes as long as the slowest of them.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST_WAIT = 5.0
"""Seconds that a decision waits for those of other threads. It does so in vain only where there are
fewer of them than in the prediction before."""


class SideBySide:
    """The decisions of one prediction by thread. How many there are is known from the one before.

    In a run of one thread, and with a guider that does not tell when it begins to predict, nobody
    waits.
    """

    def __init__(self) -> None:
        self._meeting = threading.Condition()
        self._expected: Counter[int] = Counter()
        self._begun: Counter[int] = Counter()
        self._over: Counter[int] = Counter()
        self._said: dict[int, dict[int, bool]] = {}
        self._closed = False

    def begin(self) -> None:
        """The guider begins to predict."""
        with self._meeting:
            self._expected, self._begun = self._begun, Counter()
            self._over.clear()
            self._said.clear()

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Surrounds an evaluation: whoever has left it is not waited for."""
        me = threading.get_ident()
        with self._meeting:
            self._begun[me] += 1
        try:
            yield
        finally:
            with self._meeting:
                self._over[me] += 1
                self._meeting.notify_all()

    def agree(self, ready: bool) -> bool:
        """Whether all threads that are at the same evaluation of theirs are ready."""
        with self._meeting:
            me = threading.get_ident()
            turn = self._begun[me]
            said = self._said.setdefault(turn, {})
            said[me] = said.get(me, True) and ready
            self._meeting.notify_all()

            def all_have_said() -> bool:
                others = (who for who, n in self._expected.items() if n >= turn and who != me)
                return self._closed or all(w in said or self._over[w] >= turn for w in others)

            self._meeting.wait_for(all_have_said, LONGEST_WAIT)
            return all(said.values())

    def close(self) -> None:
        """Nobody waits any more."""
        with self._meeting:
            self._closed = True
            self._meeting.notify_all()
