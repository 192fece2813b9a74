"""Real slices held against those of other patients. Measured over five folds of all 80 patients: 3.3 % are unlike the
others, half of them one patient's; turned by a quarter, 70 to 80 %."""

from pathlib import Path

import numpy as np
import pytest

from brainseg_cli.io.images import read_image
from brainseg_cli.ood import find_unlike, learn_ranges, measure_look

pytestmark = pytest.mark.lgg


def test_few_are_unlike_other_patients_and_turned_ones_are(lgg: Path) -> None:
    patients = sorted(path for path in lgg.iterdir() if path.is_dir())

    def read(some: list[Path], step: int) -> list[np.ndarray]:
        files = (file for patient in some for file in sorted(patient.glob("*.tif"))[::step])
        return [read_image(file) for file in files if not file.stem.endswith("_mask")]

    ranges = learn_ranges(read(patients[::2], 3))
    seen = [image for image in read(patients[1::4], 5) if measure_look(image) is not None]
    assert len(seen) > 50
    assert sum(bool(find_unlike(image, known=[(3, ranges)])) for image in seen) < 0.15 * len(seen)
    turned = [find_unlike(np.rot90(image).copy(), known=[(3, ranges)]) for image in seen]
    assert sum("orientation" in found for found in turned) > 0.6 * len(seen)
    assert all({"intensity", "head"} <= set(find_unlike(255 - image, known=[(3, ranges)])) for image in seen)
