"""The phantom: reproducible, in LGG layout, and hard enough that a threshold is no model."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy import ndimage

from brainseg_cli.data.phantom import TUMOUR_FREE_EVERY, make_patient, patient_name, write_phantom
from brainseg_cli.io.images import read_image, read_mask

SMALL = {"slices": (3, 5), "height": 24, "width": 32}
FLAIR = 1


@pytest.fixture(scope="module")
def volumes() -> list[tuple[np.ndarray, np.ndarray]]:
    """A dozen patients as (D, H, W, 3) and (D, H, W) in {0, 1}."""
    made = [make_patient(0, number, slices=(8, 12), height=64, width=72) for number in range(12)]
    return [(np.stack([i for i, _ in one]), np.stack([m for _, m in one])) for one in made]


def read_tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def compute_dice_patient(volumes: list[tuple[np.ndarray, np.ndarray]], above: int) -> float:
    """The dice a threshold on FLAIR reaches, over patients with tumour."""
    scores = []
    for image, reference in volumes:
        if reference.any():
            prediction = image[..., FLAIR] > above
            scores.append(2 * (prediction & (reference == 1)).sum() / (prediction.sum() + reference.sum()))
    return float(np.mean(scores))


def test_the_seed_decides_every_byte_and_the_number_of_patients_none(tmp_path):
    write_phantom(tmp_path / "a", patients=3, seed=5, **SMALL)
    write_phantom(tmp_path / "b", patients=3, seed=5, **SMALL)
    write_phantom(tmp_path / "fewer", patients=2, seed=5, **SMALL)
    write_phantom(tmp_path / "other", patients=3, seed=6, **SMALL)
    a, fewer, other = (read_tree(tmp_path / name) for name in ("a", "fewer", "other"))
    assert a == read_tree(tmp_path / "b")
    assert fewer and fewer == {name: a[name] for name in a if not name.startswith(patient_name(2))}
    shared = [name for name in a.keys() & other.keys() if not name.endswith("_mask.tif")]
    assert shared and all(a[name] != other[name] for name in shared)


def test_files_are_laid_out_and_valued_as_in_lgg(tmp_path):
    said = []
    write_phantom(tmp_path, patients=3, progress=lambda *args: said.append(args), **SMALL)
    names = ["PHANTOM_AA_0001", "PHANTOM_BB_0002", "PHANTOM_CC_0003"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    assert said == [(n, 3, name) for n, name in enumerate(names, start=1)]
    for number, name in enumerate(names):
        made = make_patient(0, number, **SMALL)
        assert 3 <= len(made) <= 5
        expected = {f"{name}_{n}{end}.tif" for n in range(1, len(made) + 1) for end in ("", "_mask")}
        assert {p.name for p in (tmp_path / name).iterdir()} == expected
        for n, (image, mask) in enumerate(made, start=1):
            stored = tmp_path / name / f"{name}_{n}.tif"
            assert image.shape == (24, 32, 3) and image.dtype == np.uint8
            np.testing.assert_array_equal(read_image(stored), image)
            stored = tmp_path / name / f"{name}_{n}_mask.tif"
            np.testing.assert_array_equal(read_mask(stored), mask)
            raw = cv2.imread(str(stored), cv2.IMREAD_UNCHANGED)
            assert raw.shape == (24, 32) and set(np.unique(raw)) <= {0, 255}


def test_tumour_is_absent_at_both_ends_and_in_a_patient_now_and_then(volumes):
    for number, (_, masks) in enumerate(volumes):
        assert not masks[0].any() and not masks[-1].any()
        assert masks.any() == (number % TUMOUR_FREE_EVERY != TUMOUR_FREE_EVERY - 1)
    share = np.concatenate([masks.any(axis=(1, 2)) for _, masks in volumes]).mean()
    assert 0.40 <= share <= 0.65


def test_no_flair_threshold_finds_the_lesions(volumes):
    assert max(compute_dice_patient(volumes, above) for above in range(0, 255, 5)) < 0.6


def test_the_lesion_stands_out_from_what_surrounds_it(volumes):
    """Else the mask would be a guess, and no model could learn it."""
    disc = ndimage.generate_binary_structure(3, 1)
    disc[[0, 2]] = False  # within the slice
    for image, masks in volumes:
        if not masks.any():
            continue
        flair = image[..., FLAIR].astype(float)
        near = ndimage.binary_dilation(masks, disc, iterations=2)
        ring = ndimage.binary_dilation(masks, disc, iterations=4) & ~near
        assert np.median(flair[masks == 1]) > 1.15 * np.median(flair[ring])


def test_patients_differ_in_brightness_and_in_lesion(volumes):
    assert len({len(image) for image, _ in volumes}) > 1
    brightness = [image.mean() for image, _ in volumes]
    assert max(brightness) > 1.3 * min(brightness)
    areas = [int(masks.sum()) for _, masks in volumes if masks.any()]
    assert max(areas) > 4 * min(areas)


def test_flair_stands_in_for_a_missing_sequence_in_some_patients():
    missing = set()
    for number in range(40):
        image = make_patient(0, number, slices=(3, 3), height=16, width=16)[1][0]
        missing |= {channel for channel in (0, 2) if (image[..., channel] == image[..., FLAIR]).all()}
        assert (image[..., 0] != image[..., 2]).any()  # never both
    assert missing == {0, 2}


@pytest.mark.parametrize(
    "wrong", [{"slices": (2, 5)}, {"slices": (6, 5)}, {"height": 15}, {"width": 15}], ids=lambda wrong: str(wrong)
)
def test_sizes_without_room_for_a_head_are_refused(wrong):
    with pytest.raises(ValueError, match="16 x 16"):
        make_patient(0, 0, **wrong)


def test_the_shared_fixture_holds_the_hard_cases(phantom):
    """What other tests take for granted about `phantom`."""
    counts, tumour, depths = {}, {}, {}
    for folder in sorted(phantom.iterdir()):
        images = sorted(p for p in folder.glob("*.tif") if not p.stem.endswith("_mask"))
        raw = [cv2.imread(str(p), cv2.IMREAD_UNCHANGED) for p in images]
        assert {image.shape for image in raw} == {(40, 56, 3)}
        counts[folder.name] = len(images)
        depths[folder.name] = {image.dtype.name for image in raw}
        tumour[folder.name] = sum(int(read_mask(p.with_name(f"{p.stem}_mask.tif")).sum()) for p in images)
    assert len(set(counts.values())) == len(counts) == 6
    assert sum(counts.values()) == 33
    assert [name for name, area in tumour.items() if area == 0] == ["PHANTOM_BB_0011"]
    assert [name for name, area in tumour.items() if area == 1] == ["PHANTOM_BB_0002"]
    assert [name for name, depth in depths.items() if depth == {"uint16"}] == ["PHANTOM_CC_0003"]
    assert all(area > 10 for name, area in tumour.items() if name not in ("PHANTOM_BB_0011", "PHANTOM_BB_0002"))
