import numpy as np
import pytest

from brainseg_cli.errors import InputError
from brainseg_cli.metrics.masks import check_masks, check_probs, find_box

MASK = np.zeros((4, 7), np.uint8)


@pytest.mark.parametrize("shape", [(4, 7), (2, 3, 4), (0, 7)])
def test_what_belongs_together_passes(shape):
    mask = np.zeros(shape, np.uint8)
    for other in (mask, mask.astype(bool), mask.astype(np.int64)):
        check_masks(mask, other)
    for probs in (mask, np.full(shape, 1, np.float32), np.full(shape, 0.5)):
        check_probs(mask, probs)


@pytest.mark.parametrize("check", [check_masks, check_probs])
def test_shapes_that_broadcast_are_still_refused(check):
    with pytest.raises(InputError, match=r"the reference is \(4, 7\), the .* \(1, 7\)"):
        check(MASK, MASK[:1])


def test_probabilities_are_no_mask():
    with pytest.raises(InputError, match="the prediction holds float32 values and is not a mask"):
        check_masks(MASK, MASK.astype(np.float32))
    with pytest.raises(InputError, match="the reference holds float64 values and is not a mask"):
        check_masks(MASK.astype(np.float64), MASK)


@pytest.mark.parametrize("fault", [-1e-7, 1.0000002, np.nan, np.inf])
def test_what_is_no_probability_is_refused(fault):
    probs = np.full((4, 7), 0.5, np.float32)
    probs[3, 6] = fault
    with pytest.raises(InputError, match=r"not within \[0, 1\]"):
        check_probs(MASK, probs)


def test_the_box_around_the_tumour():
    mask = np.zeros((4, 7), bool)
    mask[1, 5] = mask[3, 2] = True
    assert find_box(mask) == (slice(1, 4), slice(2, 6))
    assert find_box(mask[1]) == (slice(5, 6),)
    volume = np.stack([~mask & False, mask, mask])
    assert find_box(volume) == (slice(1, 3), slice(1, 4), slice(2, 6))
    assert find_box(np.ones((2, 3), bool)) == (slice(0, 2), slice(0, 3))


@pytest.mark.parametrize("shape", [(4, 7), (2, 3, 4), (0, 7)])
def test_without_tumour_the_box_holds_nothing(shape):
    empty = np.zeros(shape, bool)
    assert empty[find_box(empty)].shape == (0,) * len(shape)
