"""A dataset's slices in the network's geometry, of which what stays the same from epoch to epoch is found once."""

from brainseg_cli.config import PreprocessConfig
from brainseg_cli.data.manifest import Dataset
from brainseg_cli.preprocess import Fit, fit_image
from brainseg_cli.types import Image, Mask


class Squares:
    """Images (size, size, C) and masks (size, size), uint8; where each lies in its square is remembered.

    A slice that fills its square as it is comes as it was read, and is not to be written to.
    """

    def __init__(self, dataset: Dataset, config: PreprocessConfig) -> None:
        self.dataset, self.config = dataset, config
        self._fits: dict[int, Fit] = {}

    def fit(self, row: int) -> Fit:
        """`fit_image` of a slice."""
        if row not in self._fits:
            self._fits[row] = fit_image(self.dataset.image(row), self.config)
        return self._fits[row]

    def image(self, row: int) -> Image:
        """The slice's square."""
        return self.fit(row).image(self.dataset.image(row))

    def mask(self, row: int) -> Mask:
        """The reference's square, in {0, 1}."""
        return self.fit(row).mask(self.dataset.mask(row))
