"""What holds for the surfaces of every pair of masks."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from brainseg_cli.metrics.surface import (
    assd,
    compute_diagonal,
    compute_surface_distances,
    hd95,
    measure_surface,
    nsd,
)

laws = settings(max_examples=50, deadline=None)

TOLERANCES = (0, 0.7, 1, 2.5)
shapes = st.sampled_from([(5, 7), (1, 6), (3, 4, 5), (4, 3, 1)])
steps = st.sampled_from([0.1, 0.3, 0.9, 1.0, 2.0, 5.5])


@st.composite
def pairs(draw, empty=True):
    """Two masks of one shape and a spacing; where not `empty`, each has a tumour pixel at least."""
    shape = draw(shapes)
    drawn = []
    for _ in range(2):
        kind = draw(st.sampled_from(["any", "any", "sparse", "full", *(["none"] if empty else [])]))
        if kind == "any":
            mask = draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 1)))
        elif kind == "full":
            mask = np.ones(shape, np.uint8)
        else:
            mask = np.zeros(shape, np.uint8)
        if not empty or kind == "sparse":
            mask[draw(st.tuples(*(st.integers(0, side - 1) for side in shape)))] = 1
        drawn.append(mask)
    return *drawn, tuple(draw(steps) for _ in shape)


def find_surface(mask):
    """As the docstring says it, by an erosion whose outside is background."""
    return (mask > 0) ^ ndimage.binary_erosion(mask)


def measure(reference, prediction, spacing=None):
    return measure_surface(reference, prediction, tolerances=TOLERANCES, spacing=spacing)


@laws
@given(pairs(empty=False))
def test_every_distance_is_the_smallest_of_all_pairs(drawn):
    reference, prediction, spacing = drawn
    found = compute_surface_distances(*drawn)
    one, other = (np.argwhere(find_surface(mask)) * spacing for mask in (reference, prediction))
    table = np.sqrt(((one[:, None] - other[None]) ** 2).sum(axis=-1))
    np.testing.assert_allclose(found.reference, table.min(axis=1), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.prediction, table.min(axis=0), rtol=1e-12, atol=1e-12)


@laws
@given(pairs())
def test_exchanging_the_masks_exchanges_the_directions_and_changes_no_measure(drawn):
    reference, prediction, spacing = drawn
    found, exchanged = compute_surface_distances(*drawn), compute_surface_distances(prediction, reference, spacing)
    np.testing.assert_array_equal(found.reference, exchanged.prediction)
    np.testing.assert_array_equal(found.prediction, exchanged.reference)
    assert measure(*drawn) == pytest.approx(measure(prediction, reference, spacing), nan_ok=True)


@laws
@given(pairs(), st.booleans())
def test_the_distance_is_zero_only_between_equal_surfaces(drawn, hollow):
    reference, prediction, spacing = drawn
    if hollow:
        prediction = find_surface(reference)  # perhaps another mask, and where it is one pixel thick the same outline
    equal = bool((find_surface(prediction) == find_surface(reference)).all())
    measured = measure(reference, prediction, spacing)
    if not reference.any() and not prediction.any():
        assert all(math.isnan(value) for value in measured.values())
        return
    assert (measured["assd"] == 0) == (measured["nsd_0"] == 1) == equal
    assert measured["hd95"] == 0 or not equal


@laws
@given(pairs(empty=False), st.integers(0, 3), st.integers(0, 3), st.sampled_from([None, 0, 1, (0, 1)]))
def test_shifting_flipping_or_a_wider_field_changes_nothing(drawn, before, after, flip):
    reference, prediction, spacing = drawn

    def move(mask):
        wide = np.pad(mask, (before, after))
        return wide if flip is None else np.flip(wide, flip)

    assert measure(move(reference), move(prediction), spacing) == pytest.approx(measure(*drawn), rel=1e-12, abs=1e-12)
    if flip is None:  # to the last bit: measured within the box of the two, wherever that is
        assert measure(move(reference), move(prediction), spacing) == measure(*drawn)


@laws
@given(pairs())
def test_exchanging_axes_with_their_spacing_changes_nothing(drawn):
    reference, prediction, spacing = drawn
    turned = measure(reference.T, prediction.T, spacing[::-1])
    assert turned == pytest.approx(measure(*drawn), rel=1e-12, abs=1e-12, nan_ok=True)


@laws
@given(pairs(), st.sampled_from([0.25, 1 / 3, 2.0, 7.0]))
def test_distances_grow_with_the_spacing(drawn, factor):
    reference, prediction, spacing = drawn
    grown = tuple(factor * step for step in spacing)
    found = measure_surface(reference, prediction, tolerances=[factor * t for t in TOLERANCES], spacing=grown)
    expected = measure(*drawn)
    for name in ("hd95", "assd"):
        assert found.pop(name) == pytest.approx(factor * expected.pop(name), rel=1e-12, nan_ok=True)
    assert list(found.values()) == pytest.approx(list(expected.values()), nan_ok=True)


@laws
@given(pairs(empty=False))
def test_no_measure_exceeds_the_largest_distance_nor_that_the_diagonal(drawn):
    reference, _, spacing = drawn
    distances = compute_surface_distances(*drawn)
    largest = max(directed.max() for directed in distances)
    assert 0 <= hd95(distances) <= largest < compute_diagonal(reference.shape, spacing)
    assert 0 <= assd(distances) <= largest * (1 + 1e-12)  # a mean of equals may round past them
    assert nsd(distances, largest) == 1


@laws
@given(pairs(empty=False), st.lists(st.floats(0, 20), min_size=2, max_size=6))
def test_a_larger_tolerance_never_lowers_nsd(drawn, tolerances):
    distances = compute_surface_distances(*drawn)
    shares = [nsd(distances, tolerance) for tolerance in sorted(tolerances)]
    assert shares == sorted(shares)
    assert shares[0] >= 0 and shares[-1] <= 1
