"""hd95, assd and nsd against MONAI, and against DeepMind's surface-distance as far as it means the same surface."""

import math

import numpy as np
import pytest
import surface_distance as deepmind
from scipy import ndimage

from brainseg_cli.metrics.surface import SurfaceDistances, assd, compute_surface_distances, hd95, measure_surface, nsd

# what the two libraries say of their own code, of no meaning for ours
pytestmark = [
    pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Please import .* from the .scipy.ndimage. namespace:DeprecationWarning"),
]

TOLERANCES = (0, 1, 1.5, 2, 4)
CASES = [
    pytest.param((30, 43), None, id="2-D"),
    pytest.param((30, 43), (0.9, 1.7), id="2-D, mm"),
    pytest.param((12, 17, 9), None, id="3-D"),
    pytest.param((12, 17, 9), (0.9, 1.1, 5.0), id="3-D, mm"),
]


@pytest.fixture(scope="module")
def measure_by_monai():
    """`measure_surface` as MONAI has it; imported here, for it brings torch.

    `hd95` is the percentile in float64 of MONAI's distances, `hd95_float32` what MONAI makes of them.
    """
    import torch
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
    from monai.metrics.utils import get_edge_surface_distance

    def measure(reference, prediction, *, tolerances, spacing=None):
        prediction, reference = (torch.as_tensor(mask.copy())[None, None].float() for mask in (prediction, reference))
        _, distances, _ = get_edge_surface_distance(
            prediction[0, 0], reference[0, 0], spacing=spacing, symmetric=True, warn_empty=False
        )
        percentiles = [torch.quantile(directed.double(), 0.95) for directed in distances if len(directed)]
        given = {"include_background": True, "spacing": spacing}
        measured = {
            "hd95": max(percentiles, default=torch.tensor(math.nan)),
            "hd95_float32": compute_hausdorff_distance(prediction, reference, percentile=95, **given),
            "assd": compute_average_surface_distance(prediction, reference, symmetric=True, **given),
        }
        for tolerance in tolerances:
            found = compute_surface_dice(prediction, reference, [tolerance], use_subvoxels=False, **given)
            measured[f"nsd_{tolerance:g}"] = found
        return {name: value.item() for name, value in measured.items()}

    return measure


def draw_pair(rng, shape):
    """Two masks that are not empty: blobs that share some of their noise, or specks."""
    noise, other = (ndimage.gaussian_filter(rng.random(shape), rng.choice([0, 1, 2])) for _ in range(2))
    share = rng.random()
    pair = [noise > np.quantile(noise, rng.uniform(0.5, 0.99)), share * noise + (1 - share) * other]
    pair[1] = pair[1] > np.quantile(pair[1], rng.uniform(0.5, 0.99))
    return [mask.astype(np.uint8) for mask in pair]


def with_equal_areas(distances: SurfaceDistances):
    """Our distances as surface-distance takes them: sorted, each element of the same area."""
    return {
        "distances_gt_to_pred": np.sort(distances.reference),
        "distances_pred_to_gt": np.sort(distances.prediction),
        "surfel_areas_gt": np.ones(len(distances.reference)),
        "surfel_areas_pred": np.ones(len(distances.prediction)),
    }


def compute_place_error(directed):
    """What a percentile is off where its place among n values, 0.95 (n - 1), is float32: n 2^-23 of the step there."""
    ordered, at = np.sort(directed), int(0.95 * (len(directed) - 1))
    near = ordered[max(at - 1, 0) : at + 3]
    return len(ordered) * 2**-23 * (near[-1] - near[0])


@pytest.mark.parametrize(("shape", "spacing"), CASES)
def test_monai_agrees(rng, measure_by_monai, shape, spacing):
    for _ in range(20):
        reference, prediction = draw_pair(rng, shape)
        found = measure_surface(reference, prediction, tolerances=TOLERANCES, spacing=spacing)
        expected = measure_by_monai(reference, prediction, tolerances=TOLERANCES, spacing=spacing)
        in_float32 = expected.pop("hd95_float32")
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)  # MONAI's distances are float32
        slack = max(compute_place_error(d) for d in compute_surface_distances(reference, prediction, spacing))
        assert found["hd95"] == pytest.approx(in_float32, rel=1e-6, abs=1e-6 + slack)


@pytest.mark.parametrize(("shape", "spacing"), CASES)
def test_the_rules_of_surface_distance_agree_on_equal_areas(rng, shape, spacing):
    for _ in range(20):
        distances = compute_surface_distances(*draw_pair(rng, shape), spacing)
        theirs = with_equal_areas(distances)
        one, other = deepmind.compute_average_surface_distance(theirs)
        n, m = len(distances.reference), len(distances.prediction)
        assert assd(distances) == pytest.approx((n * one + m * other) / (n + m), abs=1e-6)
        for tolerance in TOLERANCES:
            expected = deepmind.compute_surface_dice_at_tolerance(theirs, tolerance)
            assert nsd(distances, tolerance) == pytest.approx(expected, abs=1e-6)
        # no interpolation there: with n distances it takes the one at place ceil(0.95 n) - 1, counted from 0, which
        # is floor or ceil of the place 0.95 (n - 1) we interpolate at. So theirs is one of the two neighbours.
        robust = deepmind.compute_robust_hausdorff(theirs, 95)
        low, high = (max(np.percentile(d, 95, method=which) for d in distances) for which in ("lower", "higher"))
        assert low <= robust <= high and low <= hd95(distances) <= high


@pytest.mark.parametrize(("shape", "spacing"), CASES)
def test_surfaces_between_the_pixels_are_at_most_a_pixel_diagonal_off(rng, shape, spacing):
    """surface-distance on the masks: its elements lie on the corners where pixels meet, ours in the pixels' middle.

    The face between a surface pixel and the background it touches ends in corners of its elements, half a pixel
    diagonal from the middle; and among the pixels round one of its corners, some tumour and some not, a tumour pixel
    has a face to background. So each surface lies within half a diagonal of the other library's, and the distance
    between two surfaces, the largest of all, moves by at most twice that.
    """
    steps = spacing or (1,) * len(shape)
    for _ in range(20):
        pair = draw_pair(rng, shape)
        ours = compute_surface_distances(*pair, spacing)
        theirs = deepmind.compute_surface_distances(*(mask > 0 for mask in pair), steps)
        largest = max(directed.max() for directed in ours)
        assert abs(deepmind.compute_robust_hausdorff(theirs, 100) - largest) <= math.hypot(*steps) + 1e-9
        # and a 95th percentile is no more than the largest
        assert hd95(ours) <= deepmind.compute_robust_hausdorff(theirs, 100) + math.hypot(*steps) + 1e-9
        assert deepmind.compute_robust_hausdorff(theirs, 95) <= largest + math.hypot(*steps) + 1e-9


def test_surfaces_weighted_by_length_hold_at_most_twelve_times_the_share(rng):
    """The same in 2-D for shares, so for every percentile and nsd: how much lies beyond a distance.

    Theirs weighs a corner by the length of outline there, 1/sqrt(2) to sqrt(2) pixels; ours counts pixels. A pixel
    has 2 to 4 of the corners, a corner 1 to 3 of the pixels, so n pixels have at least 2n/3 corners. Elements that
    belong together differ by a pixel diagonal at most (above). If k of n pixels lie beyond t, at most 4k corners of
    length 4 sqrt(2) k lie beyond t + sqrt(2), of a length of n sqrt(2)/3 or more: a share 12 times k/n. And if of a
    length W a length w lies beyond t, these are at most w sqrt(2) corners, half of all corners of the at most
    3 w sqrt(2)/2 pixels beyond t + sqrt(2), out of at least W/(4 sqrt(2)): 12 times w/W.
    """
    root2 = math.sqrt(2)
    for _ in range(40):
        pair = draw_pair(rng, (30, 43))
        ours = compute_surface_distances(*pair)
        theirs = deepmind.compute_surface_distances(*(mask > 0 for mask in pair), (1, 1))
        for t in (0, 0.5, 1, 2, 3, 5):
            ours_near, ours_far = (1 - nsd(ours, distance) for distance in (t, t + root2))
            near, far = (1 - deepmind.compute_surface_dice_at_tolerance(theirs, d + 1e-9) for d in (t, t + root2))
            assert far <= 12 * ours_near + 1e-9
            assert ours_far <= 12 * near + 1e-9


def test_a_disc_in_a_larger_disc_is_the_same_to_both():
    # radii 10 and 14: an assd and a hd95 of about 4, and the two libraries within half a pixel of each other
    rows, columns = np.ogrid[:40, :45]
    small, large = ((rows - 19) ** 2 + (columns - 22) ** 2 <= radius**2 for radius in (10, 14))
    ours = compute_surface_distances(small, large)
    theirs = deepmind.compute_surface_distances(small, large, (1, 1))
    assert hd95(ours) == pytest.approx(4, abs=0.5)
    assert deepmind.compute_robust_hausdorff(theirs, 95) == pytest.approx(hd95(ours), abs=0.5)
    assert deepmind.compute_average_surface_distance(theirs) == pytest.approx([assd(ours)] * 2, abs=0.5)


@pytest.mark.parametrize("shape", [(30, 43), (12, 17, 9)])
def test_where_a_mask_is_empty_monai_has_no_number(rng, measure_by_monai, shape):
    """inf for the mean, NaN for the percentile (torch interpolates between inf and inf), and 0 for nsd as ours.

    A mean over cases would drop the one and be lost to the other; ours is the diagonal, so that a missed tumour
    counts. Where both masks are empty, all is NaN in both.
    """
    tumour, empty = draw_pair(rng, shape)[0], np.zeros(shape, np.uint8)
    diagonal = math.hypot(*shape)
    for pair in ((tumour, empty), (empty, tumour)):
        with pytest.warns(UserWarning, match="of class 0 is all 0"):
            theirs = measure_by_monai(*pair, tolerances=[1])
        assert math.isnan(theirs["hd95_float32"]) and theirs["assd"] == math.inf and theirs["nsd_1"] == 0
        ours = measure_surface(*pair, tolerances=[1])
        assert ours == pytest.approx({"hd95": diagonal, "assd": diagonal, "nsd_1": 0})
    with pytest.warns(UserWarning, match="of class 0 is all 0"):
        theirs = measure_by_monai(empty, empty, tolerances=[1])
    ours = measure_surface(empty, empty, tolerances=[1])
    assert all(math.isnan(value) for value in (*theirs.values(), *ours.values()))
