import math

import numpy as np
import pytest
from scipy import ndimage

from brainseg_cli.errors import InputError
from brainseg_cli.metrics.surface import (
    SurfaceDistances,
    assd,
    compute_diagonal,
    compute_surface_distances,
    describe_surface,
    hd95,
    measure_slices,
    measure_surface,
    nsd,
)

EMPTY = np.zeros((9, 12), np.uint8)
ROOT2 = math.sqrt(2)


def draw(*boxes, shape=(9, 12)):
    """A mask of the given shape with each box, a tuple of slices or indices, filled."""
    mask = np.zeros(shape, np.uint8)
    for box in boxes:
        mask[box] = 1
    return mask


def test_two_single_pixels():
    # (1, 2) and (4, 6): 3 rows and 4 columns apart, so 5; with 2 mm rows and 0.5 mm columns hypot(6, 2)
    reference, prediction = draw((1, 2)), draw((4, 6))
    assert [array.tolist() for array in compute_surface_distances(reference, prediction)] == [[5.0], [5.0]]
    measured = measure_surface(reference, prediction, tolerances=[4.9, 5])
    assert measured == {"hd95": 5.0, "assd": 5.0, "nsd_4.9": 0.0, "nsd_5": 1.0}
    in_mm = measure_surface(reference, prediction, tolerances=[6], spacing=(2, 0.5))
    assert in_mm == pytest.approx({"hd95": math.sqrt(40), "assd": math.sqrt(40), "nsd_6": 0})


def test_a_square_and_the_square_one_pixel_larger():
    # 3 x 3 inside 5 x 5. The outline of the large one: 16 pixels, its corners sqrt(2) from the small one's corners and
    # its 12 others 1. The small one: 8 pixels (not its middle), each 1 from the side next to it.
    small, large = draw(np.s_[3:6, 4:7]), draw(np.s_[2:7, 3:8])
    distances = compute_surface_distances(small, large)
    assert distances.reference.tolist() == [1.0] * 8
    assert sorted(distances.prediction.tolist()) == [1.0] * 12 + [ROOT2] * 4
    # 16 values: position 0.95 * 15 = 14.25, between two of the four sqrt(2)
    assert hd95(distances) == pytest.approx(ROOT2)
    assert assd(distances) == pytest.approx((20 + 4 * ROOT2) / 24)
    assert nsd(distances, 1) == pytest.approx(20 / 24)


def test_the_larger_directed_percentile_interpolated_and_not_that_of_the_pooled():
    # a row of 11 pixels against its first: distances 0 to 10 one way, 0 the other.
    # Position 0.95 * 10 = 9.5, so 9.5; of the 12 pooled values it would be position 10.45, 9.45
    row, first = draw(np.s_[0, :11]), draw((0, 0))
    distances = compute_surface_distances(first, row)
    assert distances.reference.tolist() == [0]
    assert distances.prediction.tolist() == list(range(11))
    assert hd95(distances) == pytest.approx(9.5)
    assert hd95(SurfaceDistances(distances.prediction, distances.reference)) == pytest.approx(9.5)
    assert assd(distances) == pytest.approx(55 / 12)  # not 2.5, the mean of the two directed means
    assert nsd(distances, 2) == pytest.approx(4 / 12)
    assert nsd(distances, 0) == pytest.approx(2 / 12)


def test_the_same_mask_is_no_distance_away():
    mask = draw(np.s_[1:4, 2:9], (7, 1))
    assert measure_surface(mask, mask, tolerances=[0]) == {"hd95": 0, "assd": 0, "nsd_0": 1}


def test_the_border_of_the_array_is_surface_and_diagonal_neighbours_are_not_asked():
    # all of 5 x 6 is tumour: its 18 border pixels are the surface, the inner 3 x 4 are not
    full, corner = np.ones((5, 6), np.uint8), draw((0, 0), shape=(5, 6))
    assert len(compute_surface_distances(full, corner).reference) == 18
    # the middle of this 3 x 3 lacks a diagonal neighbour only: 7 surface pixels, not 8
    nicked = draw(np.s_[3:6, 3:6])
    nicked[3, 3] = 0
    assert len(compute_surface_distances(nicked, draw((0, 0))).reference) == 7
    # and around a hole the four face neighbours are surface: all 8 of a ring, 16 + 4 of a holed 5 x 5
    holed = draw(np.s_[2:7, 2:7])
    holed[4, 4] = 0
    assert len(compute_surface_distances(holed, draw((0, 0))).reference) == 20


def test_distances_come_in_reading_order_of_their_elements():
    # (0, 5), (2, 1), (2, 2) to (2, 1): hypot(2, 4), 0, 1
    distances = compute_surface_distances(draw((0, 5), (2, 1), (2, 2)), draw((2, 1)))
    assert distances.reference.tolist() == [math.sqrt(20), 0, 1]
    assert distances.prediction.dtype == distances.reference.dtype == np.float64


def test_in_three_dimensions_with_a_spacing():
    # a 3 x 3 x 3 cube: 26 of 27 voxels are surface. Against its middle voxel, at 1, 2 and 4 mm:
    # 2 faces each at 1, 2 and 4; 4 edges each at hypot(1, 2), hypot(1, 4), hypot(2, 4); 8 corners at sqrt(21)
    cube, middle = draw(np.s_[1:4, 2:5, 1:4], shape=(5, 7, 6)), draw((2, 3, 2), shape=(5, 7, 6))
    distances = compute_surface_distances(cube, middle, (1, 2, 4))
    expected = [1.0] * 2 + [2.0] * 2 + [4.0] * 2
    expected += [math.sqrt(5)] * 4 + [math.sqrt(17)] * 4 + [math.sqrt(20)] * 4 + [math.sqrt(21)] * 8
    np.testing.assert_allclose(np.sort(distances.reference), sorted(expected), rtol=1e-12)
    assert distances.prediction.tolist() == [1.0]  # the middle voxel to the nearest face
    measured = measure_surface(cube, middle, tolerances=[2], spacing=(1, 2, 4))
    assert measured == pytest.approx({"hd95": math.sqrt(21), "assd": (sum(expected) + 1) / 27, "nsd_2": 5 / 27})


def test_a_volume_of_one_slice_is_all_surface():
    # every voxel has the border above and below, so the nine of a square count and not its outline of eight
    square = draw(np.s_[3:6, 4:7])
    far = draw((0, 0))
    assert len(compute_surface_distances(square, far).reference) == 8
    assert len(compute_surface_distances(square[..., None], far[..., None]).reference) == 9


@pytest.mark.parametrize("shape", [(9, 12), (4, 5, 6), (0, 7), (1, 1)])
def test_both_empty_is_not_a_distance(shape):
    empty = np.zeros(shape, np.uint8)
    distances = compute_surface_distances(empty, empty)
    assert distances.reference.shape == distances.prediction.shape == (0,)
    assert math.isnan(hd95(distances)) and math.isnan(assd(distances)) and math.isnan(nsd(distances, 1))
    measured = measure_surface(empty, empty, tolerances=[1, 2.5])
    assert list(measured) == ["hd95", "assd", "nsd_1", "nsd_2.5"]
    assert all(math.isnan(value) for value in measured.values())


@pytest.mark.parametrize("swap", [False, True])
def test_one_empty_counts_the_diagonal_of_the_whole_array(swap):
    pair = (EMPTY, draw((4, 4))) if swap else (draw((4, 4)), EMPTY)
    assert [array.size for array in compute_surface_distances(*pair)] == [0, 0]
    # 9 x 12 is a diagonal of 15; at 4 and 1 mm hypot(36, 12)
    assert measure_surface(*pair, tolerances=[1, 99]) == {"hd95": 15, "assd": 15, "nsd_1": 0, "nsd_99": 0}
    assert measure_surface(*pair, tolerances=[], spacing=(4, 1))["hd95"] == pytest.approx(math.sqrt(36**2 + 12**2))


def test_the_diagonal_as_brats_has_it():
    assert compute_diagonal((240, 240, 155)) == pytest.approx(373.13, abs=0.005)
    assert compute_diagonal((3, 4), (2, 2)) == 10


def test_bool_255_and_any_memory_order_read_as_the_same_masks():
    reference, prediction = draw(np.s_[3:6, 4:7]), draw(np.s_[2:7, 3:8])
    expected = measure_surface(reference, prediction, tolerances=[1])
    assert measure_surface(reference.astype(bool), prediction * np.uint8(255), tolerances=[1]) == expected
    assert measure_surface(np.asfortranarray(reference), prediction[::-1][::-1], tolerances=[1]) == expected


def test_a_tolerance_holds_what_only_rounding_puts_beyond_it():
    # ten pixels of 0.1 mm, at several places: 2.3 - 1.3 and its like are not always 1 in floating point
    furthest = 0.0
    for start in range(11, 30):
        reference, prediction = draw((0, 0), (0, start), shape=(1, 40)), draw((0, 0), (0, start + 10), shape=(1, 40))
        distances = compute_surface_distances(reference, prediction, (1, 0.1))
        furthest = max(furthest, *distances.reference)
        assert nsd(distances, 1) == 1
        assert nsd(distances, 0.99) == 0.5
    assert 1 < furthest < 1 + 1e-12


@pytest.mark.parametrize("measure", [compute_surface_distances, lambda *given: measure_surface(*given, tolerances=[1])])
def test_masks_that_do_not_belong_together_are_refused(measure):
    with pytest.raises(InputError, match=r"\(9, 12\).*\(1, 12\)"):
        measure(EMPTY, EMPTY[:1])
    for axes in (1, 4):
        mask = np.ones((2,) * axes, np.uint8)
        with pytest.raises(InputError, match=f"{axes} axes"):
            measure(mask, mask)
    with pytest.raises(InputError, match="prediction holds float64"):
        measure(EMPTY, EMPTY.astype(np.float64))


@pytest.mark.parametrize("spacing", [(), (1,), (1, 1, 1), (0, 1), (1, -1), (math.nan, 1), (1, math.inf)])
def test_a_spacing_that_is_none_is_refused_also_where_nothing_is_measured(spacing):
    for measure in (
        lambda: compute_surface_distances(EMPTY, EMPTY, spacing),
        lambda: measure_surface(EMPTY, EMPTY, tolerances=[], spacing=spacing),
        lambda: compute_diagonal((9, 12), spacing),
    ):
        with pytest.raises(InputError, match="spacing"):
            measure()


@pytest.mark.parametrize("tolerance", [-1, -1e-9, math.nan])
def test_a_tolerance_that_is_none_is_refused_also_where_nothing_is_measured(tolerance):
    for mask in (EMPTY, draw((4, 4))):
        with pytest.raises(InputError, match="tolerance"):
            measure_surface(mask, EMPTY, tolerances=[1, tolerance])


@pytest.mark.parametrize("unit", ["px", "mm"])
def test_every_name_of_a_summary_has_its_definition(unit):
    definitions = describe_surface(unit, [1, 2.5])
    measures = ["hd95{}_", "assd{}_", "nsd{}_1", "nsd{}_2.5"]
    assert list(definitions) == [name.format(of) + unit for of in ("", "_slice") for name in measures]
    assert len(set(definitions.values())) == len(definitions)
    for name, text in definitions.items():
        in_volume = unit == "mm" and "_slice" not in name
        assert ("in 3-D" in text) == ("6 face neighbours" in text) == in_volume
        assert ("in 2-D" in text) == ("4 face neighbours" in text) == (not in_volume)
        assert f"in {unit};" in text and "empty in both" in text
        penalty = "0" if name.startswith("nsd") else "the volume's diagonal" if in_volume else "the slice's diagonal"
        assert f"One mask empty counts as {penalty};" in text
    assert f"at most 2.5 {unit}" in definitions[f"nsd_slice_2.5{unit}"]
    assert ("mean over a patient's slices, then over patients" in definitions[f"assd_{unit}"]) == (unit == "px")


@pytest.mark.parametrize("spacing", [None, (0.5, 2.0), (100, 0.001), (0.001, 100)])
def test_a_stack_of_slices_is_measured_as_each_alone(rng, spacing):
    def blob(size):
        return ndimage.binary_opening(ndimage.gaussian_filter(rng.random((40, 56)), 2) > 0.5 + size).astype(np.uint8)

    empty, noise = np.zeros((40, 56), np.uint8), rng.integers(0, 2, (40, 56), np.uint8)
    references = np.stack([blob(0.02), blob(0.03), empty, empty, blob(0.02), noise, blob(0.01)])
    predictions = np.stack([blob(0.02), empty, blob(0.03), empty, references[4], noise[::-1], blob(0.04)])
    together = measure_slices(references, predictions, tolerances=(0.5, 3), spacing=spacing, shape=(300, 200))
    alone = [
        measure_surface(*pair, tolerances=(0.5, 3), spacing=spacing, shape=(300, 200))
        for pair in zip(references, predictions, strict=True)
    ]
    assert {name: len(column) for name, column in together.items()} == dict.fromkeys(alone[0], len(alone))
    for at, one in enumerate(alone):
        assert {name: column[at] for name, column in together.items()} == pytest.approx(one, rel=1e-12, nan_ok=True)
    assert together["hd95"][1] == compute_diagonal((300, 200), spacing) and math.isnan(together["assd"][3])


def test_no_slices_give_nothing():
    nothing = np.zeros((0, 4, 5), np.uint8)
    found = measure_slices(nothing, nothing, tolerances=(1,))
    assert list(found) == ["hd95", "assd", "nsd_1"] and all(column.shape == (0,) for column in found.values())


@pytest.mark.parametrize("shape", [(1, 300), (300, 1), (6, 5000), (5000, 6)])
def test_long_slices_are_measured_as_each_alone(rng, shape):
    references, predictions = (rng.random((2, 3, *shape)) < 0.01).astype(np.uint8)
    references[:, 0, 0] = predictions[:, -1, -1] = 1
    together = measure_slices(references, predictions, tolerances=(3,))
    for at, pair in enumerate(zip(references, predictions, strict=True)):
        alone = measure_surface(*pair, tolerances=(3,))
        assert {name: column[at] for name, column in together.items()} == pytest.approx(alone, rel=1e-12)
