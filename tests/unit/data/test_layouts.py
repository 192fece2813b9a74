"""Which file is whose mask, which patient's, and which slice: by name alone."""

import pytest

from brainseg_cli.data.layouts import Pairing, pair_files
from brainseg_cli.errors import InputError, UsageError


def lgg_names(*stems: str) -> list[str]:
    return [f"{stem}{end}.tif" for stem in stems for end in ("", "_mask")]


def slices(pairing: Pairing) -> list[tuple[str, int, str]]:
    """(patient, slice, image) of every pair, in order."""
    return [(pair.patient_id, pair.slice_index, pair.image) for pair in pairing.pairs]


def test_lgg_the_folder_is_the_patient_and_slices_count_as_a_person_does() -> None:
    names = lgg_names("all/p10/p10_1", "all/p2/p2_10", "all/p2/p2_9", "all/p2/p2_1")
    pairing = pair_files(reversed(names))
    assert slices(pairing) == [
        ("p2", 1, "all/p2/p2_1.tif"),
        ("p2", 9, "all/p2/p2_9.tif"),
        ("p2", 10, "all/p2/p2_10.tif"),
        ("p10", 1, "all/p10/p10_1.tif"),
    ]
    assert [pair.mask for pair in pairing.pairs[:2]] == ["all/p2/p2_1_mask.tif", "all/p2/p2_9_mask.tif"]
    assert (pairing.layout, pairing.patients_known, pairing.unpaired) == ("lgg", True, [])


def test_lgg_a_mask_may_have_another_suffix_than_its_image() -> None:
    pairing = pair_files(["p/p_1.tif", "p/p_1_mask.png", "p/p_2.JPG", "p/p_2_mask.tiff"])
    assert [(pair.image, pair.mask) for pair in pairing.pairs] == [
        ("p/p_1.tif", "p/p_1_mask.png"),
        ("p/p_2.JPG", "p/p_2_mask.tiff"),
    ]


def test_lgg_files_in_no_folder_are_patients_of_their_own_and_it_is_said() -> None:
    pairing = pair_files(lgg_names("scan_1", "scan_2"))
    assert [pair.patient_id for pair in pairing.pairs] == ["scan_1", "scan_2"]
    assert not pairing.patients_known
    assert pair_files(lgg_names("scan_1", "scan_2"), patient_regex="(scan)").patients_known


def test_one_file_outside_every_folder_is_enough_to_say_so() -> None:
    pairing = pair_files(lgg_names("p1/p1_1", "p1/p1_2", "stray_3"))
    assert [pair.patient_id for pair in pairing.pairs] == ["p1", "p1", "stray_3"]
    assert not pairing.patients_known


@pytest.mark.parametrize("layout", ["auto", "folders"])
def test_flat_folders_make_each_file_its_own_patient(layout: str) -> None:
    pairing = pair_files(["images/b_2.png", "images/a_1.png", "masks/a_1.png", "masks/b_2.png"], layout)  # type: ignore[arg-type]
    assert slices(pairing) == [("a_1", 1, "images/a_1.png"), ("b_2", 2, "images/b_2.png")]
    assert (pairing.layout, pairing.patients_known) == ("folders", False)


def test_nested_folders_the_parent_is_the_patient_on_either_side_of_images() -> None:
    inside = pair_files(["images/p1/1.png", "masks/p1/1.tif", "images/p2/1.png", "masks/p2/1.tif"])
    outside = pair_files(["p1/images/1.png", "p1/masks/1.png", "p2/images/1.png", "p2/masks/1.png"])
    for pairing in (inside, outside):
        assert [(pair.patient_id, pair.slice_index) for pair in pairing.pairs] == [("p1", 1), ("p2", 1)]
        assert pairing.patients_known and not pairing.unpaired


def test_a_folder_around_both_trees_is_no_patient() -> None:
    flat = pair_files([f"brain/{side}/{stem}.png" for side in ("images", "masks") for stem in ("a_1", "b_1")])
    assert ([pair.patient_id for pair in flat.pairs], flat.patients_known) == (["a_1", "b_1"], False)
    deep = pair_files([f"brain/{side}/{stem}.png" for side in ("images", "masks") for stem in ("p/1", "q/1")])
    assert ([pair.patient_id for pair in deep.pairs], deep.patients_known) == (["p", "q"], True)


def test_folder_names_in_any_spelling_masks_with_or_without_their_ending_and_mixed_suffixes() -> None:
    names = ["Imgs/a_1.tif", "Imgs/a_2.png", "Imgs/a_3.jpeg", "MASK/a_1_mask.png", "MASK/a_2.tif", "MASK/a_3_mask.jpg"]
    pairing = pair_files(names)
    assert pairing.layout == "folders"
    assert [(pair.image, pair.mask) for pair in pairing.pairs] == list(zip(names[:3], names[3:], strict=True))


@pytest.mark.parametrize("pattern", [r"/([a-z]+)-", r"(images)/(?P<patient>[a-z]+)-", r"/(?P<patient>[a-z]+)(-)"])
def test_a_pattern_finds_the_patient_by_its_named_group_or_its_first(pattern: str) -> None:
    stems = ["eve-1", "adam-2", "eve-3"]
    names = [f"{side}/{stem}.png" for side in ("images", "masks") for stem in stems]
    pairing = pair_files(names, patient_regex=pattern)
    assert slices(pairing) == [
        ("adam", 2, "images/adam-2.png"),
        ("eve", 1, "images/eve-1.png"),
        ("eve", 3, "images/eve-3.png"),
    ]
    assert pairing.patients_known


def test_a_pattern_overrides_the_folder() -> None:
    pairing = pair_files(lgg_names("day1/eve_1", "day2/eve_2"), patient_regex=r"/(\w+)_")
    assert [pair.patient_id for pair in pairing.pairs] == ["eve", "eve"]


@pytest.mark.parametrize("pattern", ["(unclosed", "no group", "[z-a]"])
def test_a_pattern_that_cannot_be_used_is_a_usage_error(pattern: str) -> None:
    with pytest.raises(UsageError, match="--patient-regex"):
        pair_files(lgg_names("p/p_1"), patient_regex=pattern)


@pytest.mark.parametrize("pattern", ["(none)/", "p/(x)?", "p/()"])
def test_a_name_in_which_the_pattern_finds_nobody_is_named(pattern: str) -> None:
    with pytest.raises(InputError, match=r"^p/p_1\.tif: .*finds no patient"):
        pair_files(lgg_names("p/p_1"), patient_regex=pattern)


def test_files_without_a_partner_are_listed_in_order() -> None:
    lgg = pair_files([*lgg_names("p/p_1"), "p/p_10.tif", "p/p_2.tif", "p/p_3_mask.tif"])
    assert len(lgg.pairs) == 1
    assert lgg.unpaired == ["p/p_2.tif", "p/p_3_mask.tif", "p/p_10.tif"]
    folders = pair_files(["images/a.png", "masks/a.png", "images/b.png", "masks/c.png", "preview.png"])
    assert len(folders.pairs) == 1
    assert folders.unpaired == ["preview.png", "images/b.png", "masks/c.png"]


@pytest.mark.parametrize(
    "names",
    [
        [*lgg_names("p/p_1"), "p/p_1.png"],
        [*lgg_names("p/p_1"), "p/p_1_mask.png"],
        ["images/a.png", "images/a.tif", "masks/a.png"],
        ["images/a.png", "masks/a.png", "masks/a_mask.png"],
        ["images/a.png", "imgs/a.png", "masks/a.png"],
    ],
)
def test_two_files_for_one_slice_are_an_error_that_names_both(names: list[str]) -> None:
    with pytest.raises(InputError, match="stands for the same slice as") as caught:
        pair_files(names)
    assert sum(name in str(caught.value) for name in names) == 2


def test_numbers_that_collide_or_are_missing_give_way_to_the_place_in_order() -> None:
    collide = pair_files(lgg_names("p/a_7", "p/b_7", "p/b_12", "q/q_5"))
    assert slices(collide) == [
        ("p", 1, "p/a_7.tif"),
        ("p", 2, "p/b_7.tif"),
        ("p", 3, "p/b_12.tif"),
        ("q", 5, "q/q_5.tif"),
    ]
    missing = pair_files(lgg_names("p/first", "p/p_30", "q/q_0"))
    assert slices(missing) == [("p", 1, "p/first.tif"), ("p", 2, "p/p_30.tif"), ("q", 0, "q/q_0.tif")]


def test_names_that_count_alike_keep_one_order_whatever_order_they_come_in() -> None:
    stems = [f"p/p_{'0' * zeros}1" for zeros in range(6, -1, -1)]
    expected = [("p", index, f"{stem}.tif") for index, stem in enumerate(stems, 1)]
    names = lgg_names(*stems)
    for order in (names, names[::-1], names[3:] + names[:3]):
        assert slices(pair_files(order)) == expected


def test_folders_are_ordered_before_what_is_in_them() -> None:
    pairing = pair_files(lgg_names("p (1)/a_1", "p/b_1"))
    assert [pair.patient_id for pair in pairing.pairs] == ["p", "p (1)"]


@pytest.mark.parametrize(
    ("names", "layout"),
    [
        (["a/x_1.tif", "a/x_1_mask.tif"], "lgg"),
        (["images/x_1.tif", "images/x_1_mask.tif"], "lgg"),  # no masks/ beside it
        (["images/x_1.tif", "masks/x_1_mask.tif"], "folders"),
        (["images/x_1.tif", "masks/x_1.tif"], "folders"),
    ],
)
def test_the_layout_is_found_by_looking(names: list[str], layout: str) -> None:
    assert pair_files(names).layout == layout


@pytest.mark.parametrize("layout", ["auto", "lgg", "folders"])
@pytest.mark.parametrize("names", [["a/x.tif", "b/y.png"], ["images/x.tif", "masks/y.tif"], ["a/x_mask.tif"], []])
def test_nothing_that_pairs_up_is_an_error(names: list[str], layout: str) -> None:
    with pytest.raises(InputError, match="no image has its mask"):
        pair_files(names, layout)  # type: ignore[arg-type]
