"""How far two ways of running one network are from each other."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from brainseg_cli.models.segmenter import Network

PROBES = 4


class Parity(NamedTuple):
    """Over the pixels of the probes, or of slices."""

    max_error: float
    """Of a probability; infinite where one is no number."""
    flipped: float
    """The share of pixels that are on different sides of 0.5, or of a model's threshold."""


def make_probes(size: int, channels: int) -> npt.NDArray[np.uint8]:
    """uint8 (PROBES, size, size, channels), always the same: discs of tissue with a bright spot, noise on them."""
    rng = np.random.default_rng(5)
    rows, columns = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    probes = np.zeros((PROBES, size, size, channels), np.float64)
    for probe in probes:
        radius, (top, left) = rng.uniform(0.5, 0.9), rng.uniform(-0.3, 0.3, 2)
        head = rows**2 + (columns * rng.uniform(1, 1.3)) ** 2 < radius**2
        spot = np.exp(-((rows - top) ** 2 + (columns - left) ** 2) / 0.03)
        probe += head[..., None] * (rng.uniform(40, 120, channels) + spot[..., None] * rng.uniform(0, 120, channels))
        probe += head[..., None] * rng.normal(0, 8, probe.shape)
    return probes.clip(0, 255).astype(np.uint8)


def measure_parity(network: Network, exact: Network) -> Parity:
    """`network` against `exact` on the probes of their size."""
    probes = make_probes(exact.preprocess.size, exact.in_channels)
    found, wanted = network.submit(probes)(), exact.submit(probes)()
    return Parity(measure_error(found, wanted), float(np.mean((found >= 0.5) != (wanted >= 0.5))))


def measure_error(found: npt.NDArray[np.float32], wanted: npt.NDArray[np.float32]) -> float:
    """The largest difference; infinite where one is no number. At least one pixel."""
    error = float(np.abs(found - wanted).max())
    return error if np.isfinite(error) else float("inf")
