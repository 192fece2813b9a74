import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from brainseg_cli.errors import InputError
from brainseg_cli.metrics.lesions import (
    DEFINITIONS,
    SIZE_CLASSES,
    Lesions,
    compute_lesions,
    count_by_size,
    describe_lesions,
)

laws = settings(max_examples=60, deadline=None)
masks = st.sampled_from([(6, 9), (3, 5, 4)]).flatmap(
    lambda shape: st.tuples(*2 * [hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 0, 1]))])
)


def draw(*rows):
    """'#' is tumour."""
    return np.array([[pixel == "#" for pixel in row] for row in rows], np.uint8)


def check(found, *, sizes, dice, predicted, false_alarms):
    assert found.sizes.dtype == np.int64 and found.detected.dtype == bool and found.dice.dtype == np.float64
    assert found.sizes.tolist() == sizes
    assert found.dice.tolist() == pytest.approx(dice, nan_ok=True)
    assert found.detected.tolist() == [not np.isnan(value) for value in dice]
    assert (found.predicted, found.false_alarms) == (predicted, false_alarms)
    assert type(found.predicted) is type(found.false_alarms) is int


REFERENCE = draw(
    "##...#...",
    "##..#....",
    "........#",
    "...#....#",
)
"""Three lesions and a single pixel: 4 px, 2 px that touch at a corner, 2 px, 1 px."""


def test_found_missed_and_invented_lesions():
    prediction = draw(
        ".##......",
        ".##......",
        "........#",
        "#........",
    )
    # 2 of 4 px by a component of 4: 2 * 2 / (4 + 4); 1 of 2 px by a component of 1: 2 * 1 / (2 + 1)
    check(
        compute_lesions(REFERENCE, prediction),
        sizes=[4, 2, 2, 1],
        dice=[0.5, np.nan, 2 / 3, np.nan],
        predicted=3,
        false_alarms=1,
    )


def test_a_component_that_joins_two_lesions_counts_whole_for_both():
    prediction = draw(
        ".#####...",
        ".........",
        ".........",
        ".........",
    )
    # 5 px: one of them in the lesion of 4, one in the lesion of 2
    check(
        compute_lesions(REFERENCE, prediction),
        sizes=[4, 2, 2, 1],
        dice=[2 / 9, 2 / 7, np.nan, np.nan],
        predicted=1,
        false_alarms=0,
    )


def test_two_components_in_one_lesion_are_taken_together():
    reference = draw("#######", ".......", ".......")
    prediction = draw("##.##..", ".......", ".....##")
    # 4 of 7 px by components of 2 and 2; the third touches nothing
    check(compute_lesions(reference, prediction), sizes=[7], dice=[8 / 11], predicted=3, false_alarms=1)


def test_beside_a_lesion_is_not_in_it():
    reference, prediction = draw("##..", "...."), draw("..##", "##..")
    check(compute_lesions(reference, prediction), sizes=[2], dice=[np.nan], predicted=1, false_alarms=1)


def test_a_prediction_that_is_the_reference_finds_it_all():
    check(compute_lesions(REFERENCE, REFERENCE), sizes=[4, 2, 2, 1], dice=[1, 1, 1, 1], predicted=4, false_alarms=0)


@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 5), (0, 5), (1, 1)])
def test_nothing_to_find_and_nothing_found(shape):
    empty, full = np.zeros(shape, np.uint8), np.ones(shape, np.uint8)
    size, some = full.size, int(full.size > 0)
    check(compute_lesions(empty, empty), sizes=[], dice=[], predicted=0, false_alarms=0)
    check(compute_lesions(empty, full), sizes=[], dice=[], predicted=some, false_alarms=some)
    check(compute_lesions(full, empty), sizes=[size] * some, dice=[np.nan] * some, predicted=0, false_alarms=0)
    check(compute_lesions(full, full), sizes=[size] * some, dice=[1.0] * some, predicted=some, false_alarms=0)


def test_a_volume_is_joined_across_slices_and_their_corners():
    reference = np.zeros((4, 3, 5), np.uint8)
    reference[0, 0, 0] = reference[1, 1, 1] = 1  # one lesion, by a corner
    reference[3, 1, 1] = 1  # another, a slice between them
    prediction = np.zeros_like(reference)
    prediction[1, 1, 1:] = 1
    check(compute_lesions(reference, prediction), sizes=[2, 1], dice=[2 / 6, np.nan], predicted=1, false_alarms=0)
    by_slice = [compute_lesions(r, p) for r, p in zip(reference, prediction, strict=True)]
    assert [found.sizes.tolist() for found in by_slice] == [[1], [1], [], [1]]


def test_bool_and_255_read_as_the_same_mask():
    expected = compute_lesions(REFERENCE, REFERENCE.T.copy().reshape(REFERENCE.shape))
    other = REFERENCE.T.copy().reshape(REFERENCE.shape)
    for found in (
        compute_lesions(REFERENCE.astype(bool), other.astype(bool)),
        compute_lesions(REFERENCE * np.uint8(255), other),
    ):
        np.testing.assert_equal(found, expected)


def test_as_many_lesions_as_a_slice_can_hold():
    dots = np.zeros((256, 256), np.uint8)
    dots[::2, ::2] = 1
    found = compute_lesions(dots, np.roll(dots, 128, axis=1))
    assert len(found.sizes) == found.predicted == 128 * 128
    assert (found.sizes == 1).all() and (found.dice == 1).all() and found.false_alarms == 0


def test_masks_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"\(4, 9\).*\(1, 9\)"):
        compute_lesions(REFERENCE, REFERENCE[:1])
    with pytest.raises(InputError, match="prediction holds float32"):
        compute_lesions(REFERENCE, REFERENCE.astype(np.float32))
    with pytest.raises(InputError, match="have 1"):
        compute_lesions(REFERENCE[0], REFERENCE[0])
    with pytest.raises(InputError, match="have 4"):
        compute_lesions(REFERENCE[None, None], REFERENCE[None, None])


def test_lesions_by_size_at_the_edges_of_the_classes():
    sizes = [1, 9, 10, 99, 100, 999, 1000, 65536]
    detected = [True, True, False, True, False, False, True, False]
    dice = [0.5, 1.0, np.nan, 0.25, np.nan, np.nan, 0.75, np.nan]
    assert count_by_size(sizes, detected, dice) == [
        {"size_px": "1-9", "reference": 2, "detected": 2, "dice": 0.75},
        {"size_px": "10-99", "reference": 2, "detected": 1, "dice": 0.25},
        {"size_px": "100-999", "reference": 2, "detected": 0, "dice": None},
        {"size_px": "1000+", "reference": 2, "detected": 1, "dice": 0.75},
    ]


def test_no_lesions_by_size():
    nothing = compute_lesions(np.zeros((3, 5), np.uint8), np.ones((3, 5), np.uint8))
    rows = count_by_size(nothing.sizes, nothing.detected, nothing.dice)
    assert rows == [{"size_px": name, "reference": 0, "detected": 0, "dice": None} for name in SIZE_CLASSES]


def test_definitions_say_what_a_lesion_is():
    flat, deep = describe_lesions(8), describe_lesions(26)
    assert flat.keys() == deep.keys() == DEFINITIONS.keys()
    for name, text in DEFINITIONS.items():
        assert flat[name].startswith(text) and "8-connected" in flat[name]
        assert deep[name].startswith(text) and "26-connected" in deep[name]


def count_missed(found: Lesions) -> int:
    return int((~found.detected).sum())


@laws
@given(masks)
def test_every_pixel_is_in_one_lesion_and_dice_is_a_share(drawn):
    reference, prediction = drawn
    found = compute_lesions(reference, prediction)
    assert found.sizes.sum() == reference.sum()
    assert (found.sizes > 0).all()
    assert ((found.dice[found.detected] > 0) & (found.dice[found.detected] <= 1)).all()
    assert np.isnan(found.dice[~found.detected]).all()
    assert 0 <= found.false_alarms <= found.predicted <= prediction.sum()
    assert found.detected.any() == bool((reference & prediction).any())


@laws
@given(masks)
def test_a_false_alarm_is_a_missed_lesion_seen_from_the_other_side(drawn):
    reference, prediction = drawn
    forth, back = compute_lesions(reference, prediction), compute_lesions(prediction, reference)
    assert (forth.false_alarms, forth.predicted) == (count_missed(back), len(back.sizes))
    assert (back.false_alarms, back.predicted) == (count_missed(forth), len(forth.sizes))


@laws
@given(masks, st.integers(0, 2), st.booleans())
def test_moving_both_masks_changes_nothing_but_the_order(drawn, axis, transposed):
    def move(mask):
        wide = np.flip(np.pad(mask, [(axis, 1)] * mask.ndim), min(axis, mask.ndim - 1))
        return wide.T if transposed else wide

    def describe(found):
        return sorted(zip(found.sizes, np.nan_to_num(found.dice), strict=True)), found.predicted, found.false_alarms

    assert describe(compute_lesions(*map(move, drawn))) == describe(compute_lesions(*drawn))
