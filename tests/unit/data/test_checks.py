"""What is wrong with a source: each fault named with its file, and what is no fault left in peace."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from brainseg_cli.data.checks import (
    Findings,
    SliceFacts,
    find_duplicates_across,
    find_problems,
    inspect_slices,
    read_pair,
)
from brainseg_cli.data.layouts import Pair, pair_files
from brainseg_cli.errors import InputError
from brainseg_cli.io.archives import Source, open_source
from brainseg_cli.io.images import write_image, write_mask

SHAPE = (6, 9)


class Folder:
    """A source in LGG layout, slice by slice."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rng = np.random.default_rng(1)

    def noise(self, channels: int = 3, shape: tuple[int, int] = SHAPE) -> np.ndarray:
        return self.rng.integers(0, 256, (*shape, channels), np.uint8)

    def add(self, patient: str, number: int, image: np.ndarray | None = None, mask: np.ndarray | None = None) -> str:
        """Write one slice; its image's name. By default of noise, with one tumour pixel."""
        image = self.noise() if image is None else image
        if mask is None:
            mask = np.zeros(image.shape[:2], np.uint8)
            mask[1, 2] = 1
        stem = f"{patient}/{patient}_{number}"
        write_image(self.path / f"{stem}.tif", image)
        write_mask(self.path / f"{stem}_mask.tif", mask)
        return f"{stem}.tif"

    def source(self) -> tuple[Source, list[Pair]]:
        source = open_source(self.path)
        return source, pair_files(source.sizes).pairs

    def facts(self) -> list[SliceFacts]:
        facts, errors = inspect_slices(*self.source(), workers=2)
        assert not errors
        return facts

    def problems(self) -> Findings:
        return find_problems(self.facts())


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_a_sound_source_has_nothing_wrong(folder: Folder) -> None:
    for patient in "ab":
        for number in (1, 2, 3):
            folder.add(patient, number)
    assert folder.problems() == Findings()
    assert find_duplicates_across(folder.facts(), ["train"] * 3 + ["test"] * 3, leaky=False) == Findings()


def test_the_facts_of_a_slice(folder: Folder) -> None:
    image = folder.noise()
    image[..., 2] = image[..., 0]
    mask = np.zeros(SHAPE, np.uint8)
    mask[0, :4] = 1
    folder.add("p", 7, image, mask)
    (fact,) = folder.facts()
    assert (fact.pair.patient_id, fact.pair.slice_index) == ("p", 7)
    assert (fact.height, fact.width, fact.tumour_px, fact.blank) == (6, 9, 4, False)
    assert fact.equal_channels == ((0, 2),)
    expected = [np.histogram(image[..., c], 256, (-0.5, 255.5))[0] for c in range(3)]
    np.testing.assert_array_equal(fact.histogram, expected)


def test_the_hash_is_of_pixels_and_shape_not_of_the_file(folder: Folder) -> None:
    image = folder.noise(1)
    folder.add("a", 1, image)
    write_image(folder.path / "a" / "a_2.png", image)
    write_mask(folder.path / "a" / "a_2_mask.png", np.zeros(SHAPE, np.uint8))
    folder.add("a", 3, image.reshape(9, 6, 1))
    one, same, turned = (fact.sha256 for fact in folder.facts())
    assert one == same != turned
    assert len(one) == 64


# what cannot be used


def test_bad_slices_are_named_and_the_good_ones_kept_in_order(folder: Folder) -> None:
    for number in range(1, 6):
        folder.add("p", number)
    (folder.path / "p" / "p_2.tif").write_bytes(b"no image")
    (folder.path / "p" / "p_3_mask.tif").write_bytes(b"")
    write_mask(folder.path / "p" / "p_4_mask.tif", np.zeros((9, 6), np.uint8))
    source, pairs = folder.source()
    facts, errors = inspect_slices(source, pairs, workers=3)
    assert [fact.pair.slice_index for fact in facts] == [1, 5]
    assert len(errors) == 3
    assert "p_2.tif: cannot be decoded" in errors[0]
    assert "p_3_mask.tif: is empty" in errors[1]
    assert "p_4_mask.tif: is 6x9, its image 9x6" in errors[2]


def test_every_slice_is_told_of(folder: Folder) -> None:
    for number in range(1, 5):
        folder.add("p", number)
    (folder.path / "p" / "p_2.tif").write_bytes(b"no image")
    told: list[tuple[int, int, str]] = []
    inspect_slices(*folder.source(), workers=2, progress=lambda *now: told.append(now))
    assert told == [(done, 4, "checking slices") for done in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("values", "told"),
    [((0, 1, 2), "0, 1, 2"), ((0, 128, 255), "0, 128, 255"), ((1, 255), "1, 255"), (range(20), "7, ...;")],
)
def test_a_mask_that_is_not_binary_is_named_with_its_values(folder: Folder, values: range, told: str) -> None:
    folder.add("p", 1)
    mask = np.resize(np.array(values, np.uint8), SHAPE)
    write_image(folder.path / "p" / "p_1_mask.tif", mask)
    _, errors = inspect_slices(*folder.source(), workers=1)
    assert len(errors) == 1
    assert f"{folder.path}/p/p_1_mask.tif: is not a binary mask: its values are" in errors[0]
    assert told in errors[0]


@pytest.mark.parametrize("top", [1, 255])
@pytest.mark.parametrize("channels", [1, 3])
def test_masks_of_ones_or_of_255_in_grey_or_colour_are_read_alike(folder: Folder, top: int, channels: int) -> None:
    mask = folder.rng.integers(0, 2, SHAPE, np.uint8)
    folder.add("p", 1)
    write_image(folder.path / "p" / "p_1_mask.tif", np.repeat(mask[..., None] * np.uint8(top), channels, axis=2))
    source, (pair,) = folder.source()
    np.testing.assert_array_equal(read_pair(source, pair)[1], mask)
    assert folder.facts()[0].tumour_px == mask.sum()


def test_images_of_one_channel_and_of_16_bits(folder: Folder) -> None:
    grey = folder.noise(1)
    folder.add("p", 1, grey)
    deep = np.linspace(0, 4000, 6 * 9 * 3).reshape(6, 9, 3).astype(np.uint16)
    folder.add("q", 1, deep)
    source, pairs = folder.source()
    np.testing.assert_array_equal(read_pair(source, pairs[0])[0], grey)
    shown, _ = read_pair(source, pairs[1])
    assert (shown.dtype, shown.min(), shown.max()) == (np.uint8, 0, 255)
    # as near to the original as 256 levels are; above the 99.9th percentile everything is white
    np.testing.assert_allclose(shown, np.minimum(deep * (255 / np.percentile(deep, 99.9)), 255), atol=0.51)
    assert {fact.histogram.shape for fact in folder.facts()} == {(1, 256), (3, 256)}


def test_images_of_other_kinds_are_refused(folder: Folder) -> None:
    folder.add("p", 1)
    ok, data = cv2.imencode(".tif", np.zeros((*SHAPE, 3), np.float32))
    assert ok
    (folder.path / "p" / "p_1.tif").write_bytes(data.tobytes())
    source, (pair,) = folder.source()
    with pytest.raises(InputError, match=r"p_1\.tif: holds float32 values"):
        read_pair(source, pair)


# what shows only across slices


def test_channel_counts_that_differ_are_an_error_that_names_the_odd_ones(folder: Folder) -> None:
    for number in (1, 2, 3):
        folder.add("p", number)
    odd = folder.add("q", 1, folder.noise(1))
    found = folder.problems()
    assert found.errors == [f"images of 1 and 3 channels are mixed; {odd} have 1"]


def test_sizes_that_differ_are_a_warning(folder: Folder) -> None:
    folder.add("p", 1)
    folder.add("q", 1, folder.noise(shape=(12, 4)))
    found = folder.problems()
    assert (found.errors, found.warnings) == (
        [],
        ["2 image sizes (9x6, 4x12); smaller ones are stored padded"],
    )


def test_blank_images_are_named_and_no_duplicates_of_each_other(folder: Folder) -> None:
    nothing = np.zeros(SHAPE, np.uint8)
    names = [folder.add(p, 1, np.full((*SHAPE, 3), 0, np.uint8), nothing) for p in "ab"]
    folder.add("c", 1)
    found = folder.problems()
    assert found == Findings([], [f"2 blank images: {names[0]}, {names[1]}"])
    assert find_duplicates_across(folder.facts(), ["train", "test", "val"], leaky=False) == Findings()


def test_tumour_on_a_blank_image_is_said_too(folder: Folder) -> None:
    folder.add("a", 1, np.full((*SHAPE, 3), 9, np.uint8))
    folder.add("a", 2)
    found = folder.problems()
    assert found.warnings == [
        "1 blank image: a/a_1.tif",
        "1 mask with tumour on a blank image: a/a_1_mask.tif",
    ]


def test_of_many_names_the_first_five_are_shown(folder: Folder) -> None:
    for number in range(1, 9):
        folder.add("a", number, np.zeros((*SHAPE, 3), np.uint8), np.zeros(SHAPE, np.uint8))
    (warning, *_) = folder.problems().warnings
    assert "a/a_5.tif and 3 more" in warning and "a/a_6.tif" not in warning


def test_a_copied_channel_is_found_in_the_patients_where_every_slice_has_it(folder: Folder) -> None:
    def copy(a: int, b: int) -> np.ndarray:
        image = folder.noise()
        image[..., b] = image[..., a]
        return image

    for number in (1, 2):
        folder.add("all", number, copy(0, 1))
        folder.add("other", number, copy(1, 2))
        folder.add("none", number)
    folder.add("all", 3, np.zeros((*SHAPE, 3), np.uint8), np.zeros(SHAPE, np.uint8))  # a blank one decides nothing
    folder.add("some", 1, copy(0, 1))
    folder.add("some", 2)
    assert folder.problems().warnings[1:] == [
        "channels 0 and 1 are the same in 1 patient: all",
        "channels 1 and 2 are the same in 1 patient: other",
    ]


def test_the_same_image_within_a_patient_is_a_warning(folder: Folder) -> None:
    image = folder.noise()
    first, second = folder.add("a", 1, image), folder.add("a", 2, image)
    folder.add("b", 1)
    assert folder.problems() == Findings([], [f"the same image 2 times within a patient: {first}, {second}"])
    assert find_duplicates_across(folder.facts(), ["train", "train", "test"], leaky=False) == Findings()


def test_the_same_image_in_two_patients_is_an_error_across_splits_a_warning_within_one(folder: Folder) -> None:
    image = folder.noise()
    first = folder.add("a", 1, image)
    folder.add("a", 2)
    second = folder.add("b", 1, image)
    facts = folder.facts()
    assert find_problems(facts) == Findings()
    across = find_duplicates_across(facts, ["train", "train", "test"], leaky=False)
    assert not across.warnings and len(across.errors) == 1
    assert across.errors[0].startswith(f"the same image in test and train: {first}, {second};")
    said = [f"the same image in several patients: {first}, {second}"]
    assert find_duplicates_across(facts, ["val", "val", "val"], leaky=False) == Findings([], said)
    assert find_duplicates_across(facts, ["train", "val", "test"], leaky=True) == Findings([], said)


def test_a_group_in_one_patient_and_another_counts_as_across(folder: Folder) -> None:
    image = folder.noise()
    for patient, number in (("a", 1), ("a", 2), ("b", 1)):
        folder.add(patient, number, image)
    assert find_problems(folder.facts()) == Findings()
    across = find_duplicates_across(folder.facts(), ["fold-0", "fold-0", "fold-1"], leaky=False)
    assert not across.warnings and len(across.errors) == 1
    assert across.errors[0].startswith("the same image in fold-0 and fold-1: a/a_1.tif, a/a_2.tif, b/b_1.tif;")
