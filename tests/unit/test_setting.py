"""A field of settings says all of itself; saved graphs and files know the order of the fields."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import pytest

from dit_acceleration_pack.acceleration.errors import AccelerationError
from dit_acceleration_pack.acceleration.setting import Checked, changed, in_order, setting
from dit_acceleration_pack.acceleration.settings.caching import CacheDiTSettings, TeaCacheSettings
from dit_acceleration_pack.acceleration.settings.sections import SECTIONS


@dataclass(frozen=True, kw_only=True)
class Base(Checked):
    shared: int = setting(1, "Shared.", lowest=0, highest=9, most=20, limit="it must be 0 to 20")


@in_order("own")
@dataclass(frozen=True, kw_only=True)
class Made(Base):
    own: str = setting("a", "Own.", choices=("a", "b"))
    share: float = setting(0.5, "A share.", lowest=0, highest=1, below=True, limit="below 1")
    on: bool = setting(False, "A switch.")
    free: int = setting(5, "Only its widget has limits.", lowest=0, highest=9)
    shared: int = changed(Base, "shared", 2, help="Shared, otherwise.")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"shared": 21}, "shared is 21: it must be 0 to 20."),
        ({"shared": -1}, "shared is -1: it must be 0 to 20."),
        ({"share": 1.0}, "share is 1: below 1."),
        ({"share": math.nan}, "share is nan: below 1."),
        ({"own": "c"}, "own is 'c': choose one of a, b."),
        ({"on": 1}, "on is 1: it must be true or false."),
    ],
)
def test_a_field_checks_its_choices_and_limits(given: dict[str, object], sentence: str) -> None:
    with pytest.raises(AccelerationError) as error:
        Made(**given)  # type: ignore[arg-type]
    assert str(error.value) == sentence


def test_what_lies_within_is_taken() -> None:
    assert Made(shared=20, share=0.999, own="b", on=True, free=10).shared == 20


def test_the_order_given_comes_first_and_a_changed_field_keeps_what_is_not_said_anew() -> None:
    assert asdict(Made()) == {"own": "a", "shared": 2, "share": 0.5, "on": False, "free": 5}
    assert list(asdict(Made())) == ["own", "shared", "share", "on", "free"]
    known = Made.__dataclass_fields__["shared"].metadata["setting"]
    assert (known.help, known.most) == ("Shared, otherwise.", 20)
    assert known.values == "0 to 20"
    assert Base.__dataclass_fields__["shared"].metadata["setting"].help == "Shared."


def test_saved_graphs_and_files_know_the_order_of_the_fields() -> None:
    """New fields come behind these."""
    window = ["start_percent", "end_percent", "residual_device"]
    forecast = ["max_continuous_cached_steps", "calibrator", "taylorseer_order"]
    own = ["Fn_compute_blocks", "Bn_compute_blocks", "max_warmup_steps", "residual_diff_threshold"]
    plan = ["scm_preset", "scm_policy", "scm_compute_bins", "scm_cache_bins"]
    rest = ["warmup_interval", "max_cached_steps", "corrector"]
    order = [*own, *forecast, *plan, *window, *rest]
    assert list(asdict(CacheDiTSettings()))[: len(order)] == order
    own = ["rel_l1_thresh", "coefficients", "custom_coefficients"]
    order = [*own, *forecast, *window, "corrector"]
    assert list(asdict(TeaCacheSettings()))[: len(order)] == order


def test_every_field_of_every_section_says_what_it_does() -> None:
    for section in SECTIONS.values():
        for name, field in section.settings.__dataclass_fields__.items():
            assert field.metadata["setting"].help.endswith("."), name
