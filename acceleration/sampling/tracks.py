"""Which branch an evaluation goes on with: branches are told apart by their path and their track.

The *path* of an evaluation is known beforehand: what the model was called with, which evaluation of
this kind it is within one prediction (its *turn*), and which call of the network within one
evaluation. The *track* is seen: a picture's signal goes on from where it was, while another
picture, or another tile of it, is far away.

Figures are from runs of both demo models with every sampler of the host and three schedules of 9,
20 and 30 steps (``benchmarks/tracks.py``). From the third evaluation on, what changed by more than
0.4 changed by at most 1.6 times the largest of the last four changes; pictures of other noise are
0.54 to 0.81 apart. Schedules that fall exponentially from large sigmas treble the change at first.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

SHOWN = 4
"""How many of its last changes a track is measured by."""
ENOUGH = 2
"""After so many it is known what is usual for it. Samplers that add noise evaluate a step twice:
the first change within the step says nothing of the next."""
FAR = 0.5
"""A relative change below this is none of another picture."""
FARTHER = 3.0
"""A change so many times the largest that a track has shown is a jump."""
CLEARLY_NEARER = 0.5
"""Another track takes an evaluation over whose signal is nearer to it by this factor."""
MOST = 4
"""Tracks kept for one turn; the one that was not met for longest goes."""


@dataclass
class Track:
    """Where one stream of evaluations has come to."""

    turn: int
    born: float
    """Position in the schedule of its first evaluation."""
    position: float
    prediction: int = -1
    """The prediction in which it was met last."""
    met: int = 0
    """When it was met last, as a count of all meetings."""
    comes_twice: bool = False
    """Whether it was met again where it stood, as samplers with two evaluations a step do."""
    busy: bool = False
    """Whether an evaluation of it is under way (in another thread)."""
    shown: deque[float] = field(default_factory=lambda: deque(maxlen=SHOWN))

    def jumps(self, change: float) -> bool:
        """Whether a change is far beyond what the track has shown."""
        if not math.isfinite(change):
            return True
        usual = len(self.shown) >= ENOUGH
        return usual and change > FAR and change > FARTHER * max(self.shown)


@dataclass(frozen=True)
class Choice:
    """The track that an evaluation goes on with; None opens a new one."""

    track: Track | None
    jumped: bool = False
    """Whether its signal is not that of the track, which begins anew."""


def choose(
    tracks: Sequence[Track],
    changes: Sequence[float],
    turn: int,
    prediction: int,
    position: float,
) -> Choice:
    """Find the track of an evaluation.

    Parameters
    ----------
    tracks
        Of evaluations that were called alike.
    changes
        Relative change of the signal against the last of each track, infinite where it does not
        fit.
    turn
        Which evaluation of this kind this is within the prediction.
    prediction
        Number of the prediction. A track is met once in it.
    position
        Place in the schedule.
    """
    change = {id(track): change for track, change in zip(tracks, changes, strict=True)}
    # No picture comes back to where it began; who is there has begun a walk of its own.
    free = [t for t in tracks if t.prediction != prediction and not t.busy and t.born < position]
    # Of pictures that are walked side by side each comes once to a place, ...
    found = _pick([t for t in free if t.position != position], change, turn)
    again = _pick([t for t in free if t.position == position], change, turn)
    # ... but with samplers that evaluate a place twice.
    if found is not None and again is not None and any(t.comes_twice for t in tracks):
        found, again = sorted((found, again), key=lambda t: change[id(t)])
    for track in (found, again):
        if track is not None and not track.jumps(change[id(track)]):
            return Choice(track)
    # A track does not leap back in the schedule, nor while it stands.
    if found is not None and found.turn == turn and found.position < position:
        return Choice(found, jumped=True)
    return Choice(None)


def _pick(tracks: Iterable[Track], change: dict[int, float], turn: int) -> Track | None:
    """The track whose turn it is, unless the signal is clearly nearer to another."""
    tracks = list(tracks)
    if not tracks:
        return None
    own = [t for t in tracks if t.turn == turn]
    nearest = min(tracks, key=lambda t: change[id(t)])
    if not own:
        return nearest if len(nearest.shown) >= ENOUGH else None
    expected = min(own, key=lambda t: t.met)
    clearly = change[id(nearest)] < CLEARLY_NEARER * change[id(expected)]
    return nearest if clearly else expected


def hand_turn(tracks: Iterable[Track], track: Track, turn: int) -> None:
    """Give a track the turn it was met at; the one that had it takes that of the other."""
    for other in tracks:
        if other is not track and other.turn == turn and track.turn != turn:
            other.turn = track.turn
            break
    track.turn = turn
