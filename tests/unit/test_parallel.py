"""Who holds which tokens and rows, by numbers that were counted by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dit_acceleration_pack.acceleration.errors import AccelerationError
from dit_acceleration_pack.acceleration.families.base import IMAGE, JOINED, TEXT, Arg
from dit_acceleration_pack.acceleration.families.tokens import LOCAL_TEXT, Along
from dit_acceleration_pack.acceleration.parallel import Layout, cut_rows, plan, shares
from dit_acceleration_pack.acceleration.parallel.exchange import chosen
from dit_acceleration_pack.acceleration.parallel.parcels import is_plain, packed, unpacked
from dit_acceleration_pack.acceleration.parallel.prediction import Measured, predicted_seconds
from dit_acceleration_pack.acceleration.parallel.sharding import _part


def test_shares_are_even_in_whole_grains() -> None:
    assert shares(9, 2) == (5, 4)
    assert shares(10, 3) == (4, 3, 3)
    assert shares(12, 2, grain=4) == (8, 4)
    assert shares(1, 2) == (1, 0)


def test_a_rank_holds_its_text_and_then_its_image() -> None:
    # Text 0 1 2, image 3 … 9; rank 1 of 2 has text 2 and image 7 8 9.
    layout = Layout(1, 2, {TEXT: 3, IMAGE: 7})
    tokens = torch.arange(10)
    assert layout.take(tokens, 0, JOINED).tolist() == [2, 7, 8, 9]
    assert layout.take(tokens[3:], 0, IMAGE).tolist() == [7, 8, 9]
    assert layout.take(tokens[:3], 0, TEXT).tolist() == [2]
    assert layout.sizes == (6, 4)
    # As ranks hold them, one behind the other.
    assert layout.order(torch.device("cpu")).tolist() == [0, 1, 3, 4, 5, 6, 2, 7, 8, 9]


def test_some_of_the_streams_lie_as_all_do() -> None:
    layout = Layout(1, 2, {TEXT: 3, IMAGE: 7})
    assert layout.of(JOINED).sizes == (6, 4)
    image = layout.of(IMAGE)
    assert image.sizes == (4, 3)
    assert image.order(torch.device("cpu")).tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_every_tensor_of_a_tuple_is_cut_and_what_is_none_is_refused() -> None:
    layout, rule = Layout(1, 2, {IMAGE: 5}), Along(Arg("pe", 4), 1, IMAGE)
    tensor, word = _part(rule, (torch.arange(5).view(1, 5), False), layout)
    assert tensor.tolist() == [[3, 4]] and word is False
    with pytest.raises(AccelerationError, match=r"pe is a object here.*use split batch"):
        _part(rule, object(), layout)


def test_one_entry_for_all_tokens_stays_and_another_number_is_refused() -> None:
    layout = Layout(0, 2, {IMAGE: 6})
    assert layout.take(torch.ones(1, 1), 1, IMAGE).shape == (1, 1)
    with pytest.raises(AccelerationError, match=r"6 entries along dimension 1.*split batch"):
        layout.take(torch.ones(1, 5), 1, IMAGE)


def test_ranges_are_cut_and_shifted() -> None:
    layout = Layout(1, 2, {TEXT: 4, IMAGE: 6})  # text 2 3, image 3 4 5
    assert layout.cut([(0, 4, "a"), (4, None, "b")], IMAGE) == [(0, 1, "a"), (1, 3, "b")]
    assert layout.cut([(0, None, 1)], TEXT) == [(0, 2, 1)]
    # Joined: places 2 3 of the text, 7 8 9 of the image.
    assert layout.cut([(3, 8)], JOINED) == [(1, 2), (2, 3)]
    # The host has seen two text tokens and adds two to the image's ranges.
    assert layout.cut([(0, 6, 0), (6, 8, 1)], LOCAL_TEXT) == [(0, 2, 0), (2, 3, 0), (3, 5, 1)]
    assert layout.cut([(0, 3)], IMAGE) == []


def test_the_first_tokens_are_counted_on_their_rank() -> None:
    counts = [Layout(rank, 3, {IMAGE: 9}).count(4, IMAGE) for rank in range(3)]
    assert counts == [3, 1, 0]


@pytest.mark.parametrize(("grain", "what"), [(1, "2 tokens"), (4, "2 frames")])
def test_fewer_tokens_than_ranks_are_refused(grain: int, what: str) -> None:
    with pytest.raises(AccelerationError, match=rf"{what}.*3 GPUs.*fewer GPUs, or split batch"):
        Layout(0, 3, {IMAGE: 2 * grain}, grain)


@pytest.mark.parametrize(
    ("split", "ranks", "rows", "conds", "teams", "each"),
    [
        ("auto", 2, 1, 1, [[0, 1]], [1]),
        ("auto", 2, 2, 2, [[0], [1]], [1, 1]),
        ("auto", 4, 2, 2, [[0, 1], [2, 3]], [1, 1]),
        ("auto", 2, 3, 1, [[0, 1]], [3]),
        ("auto", 3, 6, 2, [[0], [1], [2]], [2, 2, 2]),
        ("sequence", 2, 2, 2, [[0, 1]], [2]),
        ("batch", 2, 3, 1, [[0], [1]], [2, 1]),
        ("batch", 4, 2, 1, [[0], [1]], [1, 1]),
        ("cfg", 2, 6, 2, [[0], [1]], [3, 3]),
        ("cfg", 4, 2, 2, [[0], [1]], [1, 1]),
        ("cfg", 2, 1, 1, [[0]], [1]),
    ],
)
def test_rows_first_then_tokens(
    split: str, ranks: int, rows: int, conds: int, teams: Any, each: Any
) -> None:
    found = plan(split, ranks, rows, conds)
    assert [list(team) for team in found.teams] == teams
    assert list(found.rows) == each
    assert sum(each) == rows


def test_a_model_whose_tokens_cannot_be_split_has_its_rows_dealt_out() -> None:
    found = plan("auto", 2, 3, 1, whole_tokens=True)
    assert found.rows == (2, 1) and not found.splits_tokens


def test_rows_are_cut_out_of_everything_that_has_them() -> None:
    given = {"a": torch.arange(4), "b": [torch.ones(1, 3), torch.arange(8).view(4, 2)], "c": 7}
    found = cut_rows(given, 4, 1, 3)
    assert found["a"].tolist() == [1, 2] and found["c"] == 7
    assert found["b"][0].shape == (1, 3) and found["b"][1].tolist() == [[2, 3], [4, 5]]
    with pytest.raises(ValueError, match=r"\(3,\) beside 4 rows"):
        cut_rows(torch.ones(3), 4, 0, 2)


def test_the_exchange_that_serves_a_call() -> None:
    assert chosen("auto", 2, 24, 24) == "keys"
    assert chosen("auto", 4, 24, 24) == "ulysses"
    assert chosen("ulysses", 3, 2, 2) == "keys"  # fewer heads than ranks
    assert chosen("ulysses", 2, 8, 2) == "keys"  # grouped heads
    assert chosen("ulysses", 2, 8, 8) == "ulysses"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.int64])
def test_tensors_arrive_as_they_were_in_memory_of_their_own(dtype: torch.dtype) -> None:
    tensor = (torch.randn(3, 4) * 5).to(dtype).t()
    for given in (tensor, torch.empty(0, 2, dtype=dtype), torch.tensor(3).to(dtype)):
        parcel = packed({"x": [given]})["x"][0]
        assert parcel.data.dtype.name == "uint8"
        got = unpacked({"x": [parcel]}, torch.device("cpu"))["x"][0]
        assert torch.equal(got, given) and got.dtype == dtype
    sent = packed(torch.ones(2))
    unpacked(sent, torch.device("cpu")).zero_()
    assert sent.data.any(), "the parcel is only read"


def test_what_stands_in_several_places_travels_once() -> None:
    add = torch.ones(4)
    first, second = packed({"input": [add, add]})["input"]
    assert first is second


def test_data_is_told_from_what_has_code() -> None:
    assert is_plain({"a": [1, "x", (None, torch.ones(1))], 3: torch.float16})
    assert not is_plain({"a": [lambda: 0]})
    assert not is_plain(object())

    class Quantized(torch.Tensor):
        pass

    assert not is_plain(torch.ones(1).as_subclass(Quantized))


def test_predicted_seconds() -> None:
    one = Measured(blocks=8.0, outside=1.0, bandwidth=2e9, latency=0.01)
    assert predicted_seconds(one, 1, 0, 0) == 9.0
    assert predicted_seconds(one, 4, 4_000_000_000, 100) == pytest.approx(1 + 2 + 2 + 1)
