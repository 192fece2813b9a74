"""Which images a command was given, in which order, and where each result goes."""

from pathlib import Path

import pytest

from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.io.images import is_map_name
from brainseg_cli.io.inputs import (
    Input,
    find_images,
    find_inputs,
    index_by_key,
    is_called_mask,
    is_there,
    mask_key,
    natural_order,
    parent_of_masks,
    parse_slice_index,
    slice_key,
    walk_images,
    walk_unordered,
)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def relatives(arguments: list[str]) -> list[str]:
    return [item.relative.as_posix() for item in find_inputs(arguments)]


@pytest.fixture
def lgg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two patients with masks beside the slices, and what else lies about in such a folder."""
    touch(tmp_path, *(f"lgg/p1/p1_{n}{end}.tif" for n in (1, 2, 10) for end in ("", "_mask")))
    touch(tmp_path, "lgg/p2/p2_1.tif", "lgg/p2/p2_1_mask.tif", "lgg/data.csv", "lgg/._p1_1.tif", "lgg/.cache/x.tif")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "lgg"


def test_a_folder_in_natural_order_without_its_masks(lgg: Path) -> None:
    assert relatives(["lgg"]) == ["p1/p1_1.tif", "p1/p1_2.tif", "p1/p1_10.tif", "p2/p2_1.tif"]
    assert [path.name for path in find_images(lgg / "p1")] == ["p1_1.tif", "p1_2.tif", "p1_10.tif"]


def test_natural_order_is_folder_by_folder() -> None:
    names = ["b/x_1.png", "a 10/x_2.png", "a 2/x_10.png", "a 2/x_9.png"]
    assert [p.as_posix() for p in natural_order(map(Path, names))] == [
        "a 2/x_9.png",
        "a 2/x_10.png",
        "a 10/x_2.png",
        "b/x_1.png",
    ]


def test_equal_numbers_have_an_order_too() -> None:
    for names in (["7.png", "07.png", "007.png"], ["007.png", "7.png", "07.png"]):
        assert natural_order(names) == ["007.png", "07.png", "7.png"]


def test_folders_of_equal_number_stay_whole_and_a_file_comes_before_a_folder_of_its_name(tmp_path: Path) -> None:
    ordered = ["a.b/1.png", "p01.png", "p1.png", "p01/2.png", "p01/10.png", "p1/1.png", "p1/3.png", "p2.png"]
    touch(tmp_path, *reversed(ordered))
    assert [path.relative_to(tmp_path).as_posix() for path in walk_images(tmp_path)] == ordered
    assert sorted(walk_unordered(tmp_path)) == sorted(walk_images(tmp_path))


def test_what_cannot_be_followed_or_listed_holds_nothing(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "no/b.png")
    for name in ("ring", "ring.png"):
        (tmp_path / name).symlink_to(name)
    (tmp_path / "lost.png").symlink_to("nowhere")
    (tmp_path / "no").chmod(0)
    found = relatives([str(tmp_path)])
    (tmp_path / "no").chmod(0o700)
    assert [name for name in found if name != "no/b.png"] == ["a.png", "lost.png", "ring.png"]  # named when read


def test_a_mask_without_its_image_counts_as_an_image(tmp_path: Path) -> None:
    touch(tmp_path, "a_mask.png", "b.tif", "b_mask.png")
    assert [path.name for path in find_images(tmp_path)] == ["a_mask.png", "b.tif"]


def test_files_and_globs(lgg: Path) -> None:
    assert relatives(["lgg/p1/p1_10.tif"]) == ["p1_10.tif"]
    assert relatives(["lgg/p1/p1_10.tif", "lgg/p1/p1_2.tif"]) == ["p1_10.tif", "p1_2.tif"]  # the order given
    assert relatives(["lgg/p1/*.tif"]) == ["p1_1.tif", "p1_2.tif", "p1_10.tif"]
    assert relatives(["lgg/**/*_1.tif"]) == ["p1/p1_1.tif", "p2/p2_1.tif"]
    assert relatives([str(lgg / "p?" / "*.tif")]) == relatives(["lgg"])


def test_several_arguments_are_mirrored_below_their_common_parent(lgg: Path) -> None:
    assert relatives(["lgg/p2", "lgg/p1/p1_1.tif"]) == ["p2/p2_1.tif", "p1/p1_1.tif"]
    touch(lgg.parent, "other/p2/p2_1.tif")
    assert relatives(["lgg/p2", "other/p2"]) == ["lgg/p2/p2_1.tif", "other/p2/p2_1.tif"]


def test_a_file_named_twice_is_done_once(lgg: Path) -> None:
    twice = ["lgg/p2/p2_1.tif", "lgg/p2", "./lgg/p2/p2_1.tif", str(lgg / "p2/p2_1.tif"), "lgg/p1/../p2/p2_1.tif"]
    items = find_inputs(twice)
    assert [item.path for item in items] == [Path("lgg/p2/p2_1.tif")]


def test_a_path_with_dots_never_climbs_out_of_the_output(lgg: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(lgg.parent, "other/o_1.tif")
    monkeypatch.chdir(lgg)
    for arguments in (["../other", "p2"], ["..", "p2"], ["../other/o_1.tif", "p2/p2_1.tif"], ["../*/o_1.tif"], [".."]):
        items = find_inputs(arguments)
        assert not any(".." in item.relative.parts for item in items), arguments
    monkeypatch.chdir(lgg / "p1")
    assert find_inputs(["../p2/p2_1.tif"])[0].patient_id == "p2"
    monkeypatch.chdir(lgg / "p2")
    (lgg / "p2" / "sub").mkdir()
    monkeypatch.chdir(lgg / "p2" / "sub")
    assert find_inputs([".."])[0].patient_id == "p2"


def test_a_link_to_a_folder_is_followed_and_a_ring_of_links_is_not(lgg: Path) -> None:
    touch(lgg.parent, "elsewhere/s_1.png")
    (lgg / "p3").symlink_to(lgg.parent / "elsewhere", target_is_directory=True)
    (lgg / "p1" / "ring").symlink_to(lgg, target_is_directory=True)
    assert relatives(["lgg"])[-1] == "p3/s_1.png"
    assert len(relatives(["lgg"])) == 5
    assert "p3/s_1" in index_by_key(lgg)


def test_odd_names(tmp_path: Path) -> None:
    touch(tmp_path, "Åsa B/coupe n° 7.TIF", "[x]/a.b.c_3.jpeg")
    assert sorted(relatives([str(tmp_path)])) == ["[x]/a.b.c_3.jpeg", "Åsa B/coupe n° 7.TIF"]
    assert find_inputs([str(tmp_path / "[x]" / "a.b.c_3.jpeg")])[0].slice_index == 3


@pytest.mark.parametrize(
    ("argument", "told"),
    [("nowhere", "nowhere: is not there"), ("no*.png", "matches no image"), ("empty", "holds no image")],
)
def test_nothing_to_work_on_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str, told: str) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=told):
        find_inputs([argument])


def test_no_argument_and_an_empty_one_are_faults_of_the_request(lgg: Path) -> None:
    with pytest.raises(UsageError, match="no input"):
        find_inputs([])
    with pytest.raises(UsageError, match="empty name"):
        find_inputs(["lgg", ""])  # a variable that was not set is not the present folder


@pytest.mark.parametrize(
    ("stem", "index"), [("TCGA_x_12", 12), ("TCGA_x_12_mask", 12), ("scan", None), ("007", 7), ("a1b", None)]
)
def test_slice_index(stem: str, index: int | None) -> None:
    assert parse_slice_index(stem) == index


@pytest.mark.parametrize(
    ("path", "relative", "patient_id"),
    [
        ("lgg/TCGA_1/TCGA_1_7.tif", "TCGA_1_7.tif", "TCGA_1"),  # the file says so itself
        ("lgg/anna/7.tif", "anna/7.tif", "anna"),  # the folder below the input does
        ("slices/7.tif", "7.tif", None),  # nobody does
        ("/7.tif", "7.tif", None),
    ],
)
def test_patient_id(path: str, relative: str, patient_id: str | None) -> None:
    assert Input(Path(path), Path(relative)).patient_id == patient_id


def test_slice_key() -> None:
    assert slice_key(Path("p/p_7_mask.tif")) == slice_key(Path("p/p_7.png")) == "p/p_7"
    assert slice_key(Path("a.b_1.tif")) == "a.b_1"


def test_index_prefers_the_mask_to_its_image(lgg: Path) -> None:
    index = index_by_key(lgg)
    assert sorted(index) == ["p1/p1_1", "p1/p1_10", "p1/p1_2", "p2/p2_1"]
    assert all(path.stem.endswith("_mask") for path in index.values())


@pytest.mark.parametrize("pair", [("a_1.png", "a_1.tif"), ("a_1_mask.png", "a_1_mask.tif")])
def test_two_files_for_one_slice_are_refused(tmp_path: Path, pair: tuple[str, str]) -> None:
    touch(tmp_path, *pair)
    with pytest.raises(InputError, match=r"stands for the same slice as a_1.*png"):
        index_by_key(tmp_path)


def test_an_index_of_something_else(tmp_path: Path) -> None:
    touch(tmp_path, "predictions.jsonl")
    assert index_by_key(tmp_path) == {}
    with pytest.raises(InputError, match="is not a folder"):
        index_by_key(tmp_path / "predictions.jsonl")


def test_a_choice_does_not_change_where_results_go(lgg: Path) -> None:
    only = find_inputs(["lgg"], accepts=lambda relative: relative.parts[0] == "p2")
    assert [item.relative.as_posix() for item in only] == ["p2/p2_1.tif"]
    below = find_inputs(["lgg/p2", "lgg/p1/p1_1.tif"], root=lgg.parent)
    assert [item.relative.as_posix() for item in below] == ["lgg/p2/p2_1.tif", "lgg/p1/p1_1.tif"]
    with pytest.raises(InputError, match="holds no image that --include and --exclude let through"):
        find_inputs(["lgg"], accepts=lambda relative: False)
    with pytest.raises(UsageError, match=r"lgg/p1/p1_10?\.tif is not below --relative-to"):
        find_inputs(["lgg"], root=lgg / "p2")


def test_what_is_there(tmp_path: Path) -> None:
    touch(tmp_path, "x")
    assert is_there(tmp_path / "x") and not is_there(tmp_path / "y") and not is_there(tmp_path / ("n" * 300))


def test_the_folder_above_masks() -> None:
    assert parent_of_masks(Path("a/masks/p/x.png")) == Path("a") and parent_of_masks(Path("a/x_mask.png")) is None


@pytest.mark.parametrize(
    ("relative", "suffix", "key"),
    [
        ("p/p_7_mask.TIF", "", "p/p_7"),
        ("test/Masks/p/p_7.png", "", "test/p/p_7"),
        ("images/p_7.png", "", "p_7"),
        ("p/p_7_pred.png", "_pred", "p/p_7"),
        ("p/p_7_mask_pred.png", "_pred", "p/p_7"),
        ("p/p_7.png", "_pred", "p/p_7"),
        ("q/p_7/seg.npy", "seg", "q/p_7"),
        ("seg.npy", "seg", ""),
        ("a.b/c.d.png", "", "a.b/c.d"),
    ],
)
def test_mask_key(relative: str, suffix: str, key: str) -> None:
    assert mask_key(Path(relative), suffix) == key


def test_what_calls_itself_a_mask() -> None:
    assert all(is_called_mask(Path(name)) for name in ("p/x_mask.png", "masks/x.png", "p/Mask/q/x.png"))
    assert not any(is_called_mask(Path(name)) for name in ("p/x.png", "masks.png", "x_mask/y.png", "images/x.png"))


def test_another_kind_of_file_is_walked_for_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "a_10.npy", "a_9.NPY", "b.png", ".c.npy", ".d/e.npy", "f.csv")
    assert [path.name for path in walk_images(tmp_path)] == ["b.png"]
    assert [path.name for path in walk_images(tmp_path, is_map_name)] == ["a_9.NPY", "a_10.npy", "b.png"]
