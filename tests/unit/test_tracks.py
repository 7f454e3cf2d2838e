"""Which track an evaluation goes on with, on cases that can be told by hand."""

from __future__ import annotations

import math

import pytest

from dit_acceleration_pack.acceleration.sampling.tracks import Choice, Track, choose, hand_turn


def track(
    turn: int = 0,
    position: float = 4.0,
    shown: tuple[float, ...] = (0.1, 0.1),
    met: int = 1,
    born: float = 0.0,
    **more: bool,
) -> Track:
    found = Track(turn, born, position, prediction=4, met=met, **more)
    found.shown.extend(shown)
    return found


def chosen(
    tracks: list[Track], changes: list[float], turn: int = 0, at: float = 5.0, prediction: int = 5
) -> Choice:
    return choose(tracks, changes, turn, prediction, at)


def test_the_first_evaluation_opens_a_track() -> None:
    assert chosen([], []) == Choice(None)


def test_a_lone_track_goes_on() -> None:
    lone = track()
    assert chosen([lone], [0.12]).track is lone


@pytest.mark.parametrize(("change", "jumps"), [(0.49, False), (0.51, True), (math.inf, True)])
def test_a_jump_is_far_and_farther_than_usual(change: float, jumps: bool) -> None:
    lone = track(shown=(0.1, 0.15))
    assert chosen([lone], [change]) == Choice(lone, jumped=jumps)


def test_what_is_usual_is_not_known_at_once() -> None:
    """Samplers that add noise evaluate a step twice: little changes, then much."""
    young = track(shown=(0.001,))
    assert chosen([young], [0.6]) == Choice(young)


def test_noise_in_every_step_is_no_jump() -> None:
    noisy = track(shown=(0.5, 0.6, 0.55, 0.7))
    assert chosen([noisy], [1.2]) == Choice(noisy)


def test_turns_tell_apart_what_looks_alike() -> None:
    """A second pass with the same picture: the signals of both tracks are the same."""
    strong, weak = track(0, met=1), track(1, met=2)
    assert chosen([strong, weak], [0.1, 0.1], turn=0).track is strong
    strong.prediction = 5
    assert chosen([strong, weak], [0.0, 0.1], turn=1).track is weak


def test_tiles_in_another_order_are_followed() -> None:
    tiles = [track(turn, met=turn) for turn in range(3)]
    found = chosen(tiles, [0.7, 0.6, 0.1], turn=0)
    assert found == Choice(tiles[2])
    hand_turn(tiles, tiles[2], 0)
    assert [tile.turn for tile in tiles] == [2, 1, 0]


def test_a_new_tile_opens_a_track() -> None:
    tiles = [track(turn) for turn in range(2)]
    for tile in tiles:
        tile.prediction = 5
    assert chosen(tiles, [0.7, 0.6], turn=2) == Choice(None)


def test_pictures_side_by_side_take_turns() -> None:
    """Both began at one place in two predictions, with the same noise: hardly apart."""
    one, other = track(met=1), track(met=2)
    assert chosen([one, other], [0.1, 0.11]).track is one
    one.position, one.met, one.prediction = 5.0, 3, 5
    assert chosen([one, other], [0.02, 0.1], prediction=6).track is other


def test_nobody_comes_back_to_where_it_began() -> None:
    one = track(position=0.0, shown=())
    assert chosen([one], [0.01], at=0.0, prediction=6) == Choice(None)
    gone_on = track(position=1.0, shown=(0.3,))
    assert chosen([gone_on], [0.7], at=0.0) == Choice(None)


def test_a_sampler_that_evaluates_a_place_twice() -> None:
    lone = track(position=5.0)
    assert chosen([lone], [0.01]) == Choice(lone)
    one, other = track(position=6.0, comes_twice=True), track(position=5.0, met=2)
    assert chosen([one, other], [0.3, 0.01]).track is other


def test_a_busy_track_is_left_alone() -> None:
    assert chosen([track(busy=True)], [0.1]) == Choice(None)


def test_a_jump_back_opens_a_track_and_leaves_the_other() -> None:
    assert chosen([track(position=9.0)], [0.8], at=2.0) == Choice(None)
