"""What every test may ask for: a seeded generator, a small phantom in LGG layout, and the real slices."""

import os
from pathlib import Path

import numpy as np
import pytest

from brainseg_cli.data.phantom import TUMOUR_FREE_EVERY, make_patient, patient_name
from brainseg_cli.io.images import write_image, write_mask

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
os.environ["MPLBACKEND"] = "Agg"

HEIGHT, WIDTH = 40, 56  # never square: a swapped axis must show
WITHOUT_TUMOUR = TUMOUR_FREE_EVERY - 1
SINGLE_PIXEL, DEEP = 1, 2  # the patients of one tumour pixel and of 16-bit images
SLICES = {0: 5, SINGLE_PIXEL: 3, DEEP: 4, 3: 7, 4: 6, WITHOUT_TUMOUR: 8}  # patient: how many, no two alike


@pytest.fixture
def rng() -> np.random.Generator:
    """The same numbers in every run, and for every test."""
    return np.random.default_rng(20240229)


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in LGG layout: six patients, 33 slices of 40 x 56, to be read and never written to.

    PHANTOM_BB_0002 has one tumour pixel, PHANTOM_CC_0003 16-bit images, PHANTOM_BB_0011 no tumour.
    """
    folder = tmp_path_factory.mktemp("phantom")
    for number, count in SLICES.items():
        name = patient_name(number)
        made = make_patient(0, number, slices=(count, count), height=HEIGHT, width=WIDTH)
        fullest = max(range(count), key=lambda at: int(made[at][1].sum()))
        for at, (image, mask) in enumerate(made):
            if number == SINGLE_PIXEL:
                mask = _keep_one_pixel(mask) if at == fullest else np.zeros_like(mask)
            shown = image.astype(np.uint16) * 37 if number == DEEP else image
            write_image(folder / name / f"{name}_{at + 1}.tif", shown)
            write_mask(folder / name / f"{name}_{at + 1}_mask.tif", mask)
    return folder


@pytest.fixture(scope="session")
def lgg() -> Path:
    """The real LGG slices; the test is skipped where they are absent."""
    default = Path(__file__).parents[2] / "shared" / "lgg" / "kaggle_3m"
    folder = Path(os.environ.get("BRAINSEG_LGG", default))
    if not folder.is_dir():
        pytest.skip(f"the LGG slices are not at {folder}; BRAINSEG_LGG says where they are")
    return folder


def _keep_one_pixel(mask: np.ndarray) -> np.ndarray:
    """The mask with all but the middle one of its tumour pixels taken away."""
    kept = np.zeros_like(mask)
    rows, columns = np.nonzero(mask)
    kept[rows[len(rows) // 2], columns[len(rows) // 2]] = 1
    return kept
