"""What a prediction says of one slice, and whether the members of an ensemble agree: by hand and by law."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from brainseg_cli.errors import InputError
from brainseg_cli.metrics.finding import describe_finding, measure_disagreement

laws = settings(max_examples=60, deadline=None)
SHAPE = (5, 7)
masks = hnp.arrays(np.uint8, SHAPE, elements=st.sampled_from([0, 0, 1]))
maps = hnp.arrays(np.float32, SHAPE, elements=st.floats(0, 1, width=32))


def draw(*rows: str) -> np.ndarray:
    """'#' is tumour."""
    return np.array([[pixel == "#" for pixel in row] for row in rows], np.uint8)


def test_a_finding_by_hand() -> None:
    mask = draw(".......", "..##...", "...#...", ".......", ".......")
    probs = np.zeros(SHAPE, np.float32)
    probs[mask == 1] = 0.5, 0.75, 1.0
    probs[4, 6] = 0.25
    found = describe_finding(mask, probs, pixel_mm=(0.5, 2.0))
    quarter = 0.25 * 2 + 0.75 * math.log2(4 / 3)  # bits at 0.25, and at 0.75
    assert found == {
        "tumour": True,
        "area_px": 3,
        "area_mm2": 3.0,
        "max_prob": 1.0,
        "mean_prob": 0.75,
        "centroid_px": [1.33, 2.67],  # 4/3, 8/3
        "box_px": [1, 2, 3, 4],
        "entropy": round((1 + 2 * quarter) / 35, 6),
    }
    top, left, bottom, right = found["box_px"]
    assert mask[top:bottom, left:right].sum() == mask.sum()


def test_a_slice_without_tumour_still_has_a_probability_and_a_doubt() -> None:
    probs = np.full(SHAPE, 0.5, np.float32)
    probs[0, 0] = 0.4
    found = describe_finding(np.zeros(SHAPE, np.uint8), probs, pixel_mm=(1, 1))
    assert found == {
        "tumour": False,
        "area_px": 0,
        "area_mm2": 0.0,
        "max_prob": 0.5,
        "mean_prob": None,
        "centroid_px": None,
        "box_px": None,
        "entropy": round((34 + 0.4 * math.log2(2.5) + 0.6 * math.log2(5 / 3)) / 35, 6),
    }


def test_the_order_of_the_keys_is_that_of_the_record() -> None:
    keys = ["tumour", "area_px", "area_mm2", "max_prob", "mean_prob", "centroid_px", "box_px", "entropy"]
    for mask in (np.zeros(SHAPE, np.uint8), np.ones(SHAPE, np.uint8)):
        assert list(describe_finding(mask, mask.astype(np.float32))) == keys


def test_the_largest_probability_may_lie_outside_the_mask() -> None:
    mask = draw("#......", *["." * 7] * 4)
    probs = np.where(mask == 1, 0.6, 0.9).astype(np.float32)
    found = describe_finding(mask, probs)
    assert (found["max_prob"], found["mean_prob"], found["area_mm2"]) == (0.9, 0.6, None)


def test_areas_are_free_of_binary_dust() -> None:
    assert describe_finding(draw("###"), np.ones((1, 3), np.float32), pixel_mm=(0.1, 0.1))["area_mm2"] == 0.03


def test_certainty_has_no_entropy_and_an_even_chance_one_bit() -> None:
    mask = draw("#.", "..")
    for p, bits in ((0.0, 0.0), (1.0, 0.0), (0.5, 1.0)):
        found = describe_finding(mask, np.full((2, 2), p, np.float32))
        assert found["entropy"] == bits and math.copysign(1, found["entropy"]) == 1
    almost = np.full((2, 2), np.nextafter(np.float32(1), np.float32(0)))
    assert 0 <= describe_finding(mask, almost)["entropy"] < 1e-5


def test_no_pixels_at_all() -> None:
    found = describe_finding(np.zeros((0, 7), np.uint8), np.zeros((0, 7), np.float32))
    assert found["tumour"] is False and found["area_px"] == 0
    assert found["max_prob"] is found["entropy"] is found["mean_prob"] is None


def test_what_does_not_fit_is_refused() -> None:
    mask, probs = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.float32)
    with pytest.raises(InputError, match=r"\(5, 7\).*\(4, 7\)"):
        describe_finding(mask, probs[1:])
    with pytest.raises(InputError, match=r"\(1, 5, 7\)"):
        describe_finding(mask[None], probs[None])
    for bad in (1.5, -0.1, np.nan):
        with pytest.raises(InputError, match=r"not within \[0, 1\]"):
            describe_finding(mask, np.full(SHAPE, bad, np.float32))


@laws
@given(masks, maps)
def test_a_finding_is_json_and_agrees_with_the_mask(mask: np.ndarray, probs: np.ndarray) -> None:
    found = describe_finding(mask, probs)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["tumour"] == (found["area_px"] > 0) == bool(mask.any())
    assert 0 <= found["entropy"] <= 1 and 0 <= found["max_prob"] <= 1
    assert {type(found["area_px"]), type(found["max_prob"]), type(found["entropy"])} == {int, float}
    if found["tumour"]:
        top, left, bottom, right = found["box_px"]
        row, column = found["centroid_px"]
        assert top - 0.01 <= row <= bottom - 1 + 0.01 and left - 0.01 <= column <= right - 1 + 0.01
        assert mask[top:bottom, left:right].sum() == mask.sum() == found["area_px"]
        assert mask[top].any() and mask[bottom - 1].any() and mask[:, left].any() and mask[:, right - 1].any()
        assert found["mean_prob"] <= found["max_prob"]


@laws
@given(maps)
def test_entropy_is_that_of_a_plain_sum(probs: np.ndarray) -> None:
    bits = [-p * math.log2(p) - (1 - p) * math.log2(1 - p) for p in map(float, probs.ravel()) if 0 < p < 1]
    assert describe_finding(probs > 0.5, probs)["entropy"] == pytest.approx(math.fsum(bits) / 35, abs=1e-6)


@laws
@given(masks, maps)
def test_the_sure_and_the_sure_not_are_as_doubtful(mask: np.ndarray, probs: np.ndarray) -> None:
    halves = np.round(probs * 256) / np.float32(256)  # 1 - p is exact
    other = describe_finding(mask, 1 - halves)
    assert other["entropy"] == pytest.approx(describe_finding(mask, halves)["entropy"], abs=1e-6)


def test_disagreement_by_hand() -> None:
    one, two, three = draw("####.."), draw("..####"), draw(".....#")
    # dice: 2 * 2 / 8 = 0.5; 0; 2 * 1 / 5 = 0.4; mean 0.3
    assert measure_disagreement([one, two, three]) == 0.7
    assert measure_disagreement([one, two]) == 0.5
    assert measure_disagreement([one, three]) == 1.0
    assert measure_disagreement([one, one, one]) == 0.0


def test_empty_masks_agree_with_one_another_and_with_nothing_else() -> None:
    empty, some = np.zeros((1, 6), np.uint8), draw("#.....")
    assert measure_disagreement([empty, empty]) == 0.0
    assert measure_disagreement([empty, some]) == 1.0
    assert measure_disagreement([empty, empty, some]) == 0.6667


def test_fewer_than_two_members_cannot_disagree() -> None:
    assert measure_disagreement([]) is None
    assert measure_disagreement([draw("#.")]) is None


def test_members_of_other_shapes_are_refused() -> None:
    with pytest.raises(InputError, match=r"\(1, 2\).*\(1, 3\)"):
        measure_disagreement([draw("#."), draw("#..")])


@laws
@given(st.lists(masks, min_size=2, max_size=5), st.randoms(use_true_random=False))
def test_disagreement_is_a_share_that_does_not_know_the_order(members: list[np.ndarray], random: object) -> None:
    found = measure_disagreement(members)
    assert isinstance(found, float) and 0 <= found <= 1
    shuffled = list(members)
    random.shuffle(shuffled)
    assert measure_disagreement(shuffled) == pytest.approx(found, abs=1e-4)
    assert (found == 0) == all((a == b).all() for a, b in itertools.pairwise(members))
    doubled = measure_disagreement([*members, *members])  # n pairs more, that agree
    n = len(members)
    assert doubled == pytest.approx(found * 4 * (n * (n - 1) / 2) / (n * (2 * n - 1)), abs=3e-4)
