"""How far two networks are from each other, on images that are always the same."""

from collections.abc import Callable

import numpy as np
import pytest

from brainseg_cli.config import PreprocessConfig
from brainseg_cli.models.parity import PROBES, make_probes, measure_error, measure_parity
from brainseg_cli.models.segmenter import Pending


class Says:
    """A network that says what `tell` makes of the first channel in [0, 1]."""

    preprocess = PreprocessConfig(size=64)
    in_channels, described, batch_size = 3, "says", 1

    def __init__(self, tell: Callable[[np.ndarray], np.ndarray]) -> None:
        self.tell = tell

    def submit(self, pixels: np.ndarray) -> Pending:
        return lambda: self.tell(pixels[..., 0] / np.float32(255)).astype(np.float32)


EXACT = Says(lambda image: image)


def test_probes_are_always_the_same_slices_no_two_alike() -> None:
    probes = make_probes(64, 3)
    assert probes.shape == (PROBES, 64, 64, 3) and probes.dtype == np.uint8
    np.testing.assert_array_equal(probes, make_probes(64, 3))
    for number, one in enumerate(probes):
        assert one[0, 0].max() == 0 and one[32, 32].min() > 0  # a dark corner, tissue in the middle
        assert not any(np.array_equal(one, other) for other in probes[:number])
    assert probes.max() > 128  # bright enough that the two sides of 0.5 can be told apart
    assert make_probes(32, 1).shape == (PROBES, 32, 32, 1)


def test_parity_is_the_largest_error_and_the_share_of_pixels_decided_otherwise() -> None:
    assert measure_parity(EXACT, EXACT) == (0.0, 0.0)
    found = measure_parity(Says(lambda image: image + np.float32(0.25)), EXACT)
    assert found.max_error == pytest.approx(0.25, abs=1e-6)
    image = make_probes(64, 3)[..., 0] / np.float32(255)
    assert found.flipped == pytest.approx(((image >= 0.25) & (image < 0.5)).mean()) and found.flipped > 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_infinitely_far(value: float) -> None:
    wanted = np.zeros((2, 3), np.float32)
    found = wanted.copy()
    found[1, 2] = value
    assert measure_error(found, wanted) == measure_error(wanted, found) == float("inf")
    assert measure_error(wanted, wanted) == 0
