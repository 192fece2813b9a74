"""A folder and a zip as one thing, and the tree that stands in the public archive twice."""

import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from brainseg_cli.errors import InputError
from brainseg_cli.io.archives import Source, open_source

TREE = {
    f"kaggle_3m/{p}/{p}_{n}{end}.tif": f"{p}{n}{end}".encode() * 9
    for p in "ab"
    for n in (1, 2)
    for end in ("", "_mask")
}
NESTED = {f"lgg-mri-segmentation/{name}": data for name, data in TREE.items()}


def lay_out(tmp_path: Path, files: Mapping[str, bytes], kind: str) -> Path:
    """The files as a folder, or as a zip of it."""
    if kind == "zip":
        path = tmp_path / "source.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return path
    for name, data in files.items():
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "source"


def contents(source: Source) -> dict[str, bytes]:
    return {name: source.read(name) for name in source.sizes}


both_kinds = pytest.mark.parametrize("kind", ["folder", "zip"])


@both_kinds
def test_names_sizes_and_bytes(tmp_path: Path, kind: str) -> None:
    path = lay_out(tmp_path, TREE | {"kaggle_3m/data.csv": b"a,b", "kaggle_3m/README.md": b"#"}, kind)
    source = open_source(path)
    assert contents(source) == TREE
    assert source.sizes == {name: len(data) for name, data in TREE.items()}
    assert source.nested_copies == 0
    assert source.where("kaggle_3m/a/a_1.tif") == f"{path}/kaggle_3m/a/a_1.tif"


@both_kinds
@pytest.mark.parametrize("copies_first", [False, True])
def test_the_same_tree_within_itself_is_read_once_and_counted(tmp_path: Path, kind: str, copies_first: bool) -> None:
    source = open_source(lay_out(tmp_path, NESTED | TREE if copies_first else TREE | NESTED, kind))
    assert contents(source) == TREE
    assert source.nested_copies == len(NESTED)


@both_kinds
def test_copies_are_found_at_any_depth_and_below_their_own_name(tmp_path: Path, kind: str) -> None:
    deep = {f"kaggle_3m/{name}": data for name, data in TREE.items()} | {f"x/y/{n}": d for n, d in TREE.items()}
    source = open_source(lay_out(tmp_path, TREE | deep, kind))
    assert contents(source) == TREE
    assert source.nested_copies == len(deep)


@both_kinds
def test_the_same_name_with_other_content_is_kept(tmp_path: Path, kind: str) -> None:
    name = "kaggle_3m/a/a_1.tif"
    other_size, other_bytes = f"u/{name}", f"v/{name}"
    files = TREE | {other_size: TREE[name] + b"!", other_bytes: TREE[name][:-1] + b"!"}
    source = open_source(lay_out(tmp_path, files, kind))
    assert contents(source) == files
    assert source.nested_copies == 0


@both_kinds
def test_the_same_content_under_another_name_is_kept(tmp_path: Path, kind: str) -> None:
    files = {"a/1.png": b"blank", "b/1.png": b"blank", "a/2.png": b"blank", "c/a/3.png": b"blank"}
    source = open_source(lay_out(tmp_path, files, kind))
    assert contents(source) == files


@both_kinds
def test_hidden_files_and_those_of_a_mac_are_passed_over(tmp_path: Path, kind: str) -> None:
    litter = {
        "__MACOSX/kaggle_3m/a/._a_1.tif": b"x",
        "kaggle_3m/a/._a_1.tif": b"x",
        "kaggle_3m/.hidden.png": b"x",
        ".cache/kaggle_3m/a/a_9.tif": b"x",
        "kaggle_3m/.git/a_9.tif": b"x",
    }
    assert contents(open_source(lay_out(tmp_path, TREE | litter, kind))) == TREE


@both_kinds
@pytest.mark.parametrize("files", [{}, {"notes.txt": b"x", "data.csv": b"y"}])
def test_no_image_is_an_error(tmp_path: Path, kind: str, files: dict[str, bytes]) -> None:
    (tmp_path / "source").mkdir()
    with pytest.raises(InputError, match="holds no image"):
        open_source(lay_out(tmp_path, files, kind))


@both_kinds
def test_a_file_that_went_away_is_named(tmp_path: Path, kind: str) -> None:
    path = lay_out(tmp_path, TREE, kind)
    source = open_source(path)
    shutil.rmtree(path) if kind == "folder" else path.write_bytes(b"")
    with pytest.raises(InputError, match=r"kaggle_3m/a/a_1\.tif: "):
        source.read("kaggle_3m/a/a_1.tif")


def test_a_link_to_nowhere_does_not_stop_the_others(tmp_path: Path) -> None:
    path = lay_out(tmp_path, TREE, "folder")
    (path / "kaggle_3m" / "gone.tif").symlink_to(tmp_path / "nowhere.tif")
    source = open_source(path)
    assert source.sizes.keys() == TREE.keys() | {"kaggle_3m/gone.tif"}
    with pytest.raises(InputError, match=r"gone\.tif: is a link to what is not there"):
        source.read("kaggle_3m/gone.tif")


def test_what_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not there"):
        open_source(tmp_path / "absent")
    (tmp_path / "text.zip").write_bytes(b"this is no archive")
    with pytest.raises(InputError, match="is neither a folder nor a zip"):
        open_source(tmp_path / "text.zip")
    whole = lay_out(tmp_path, TREE, "zip").read_bytes()
    (tmp_path / "half.zip").write_bytes(whole[: len(whole) // 2])  # the list of contents stands at the end
    with pytest.raises(InputError, match="is neither a folder nor a zip"):
        open_source(tmp_path / "half.zip")


def test_a_damaged_member_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    path = lay_out(tmp_path, TREE, "zip")
    broken = "kaggle_3m/a/a_1.tif"
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo(broken).header_offset + 30 + len(broken)
    data = bytearray(path.read_bytes())
    data[start] ^= 0xFF  # where the compressed bytes say how they are compressed
    path.write_bytes(data)
    source = open_source(path)
    with pytest.raises(InputError, match=r"kaggle_3m/a/a_1\.tif: cannot be read from the zip"):
        source.read(broken)
    assert source.read("kaggle_3m/b/b_2.tif") == TREE["kaggle_3m/b/b_2.tif"]


def test_a_truncated_member_is_named(tmp_path: Path) -> None:
    """The list of contents promises more bytes than stand there."""
    path = tmp_path / "source.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/a_1.tif", b"0123456789" * 20)
        entry = archive.getinfo("a/a_1.tif")
        entry.file_size = entry.compress_size = 10_000
    with pytest.raises(InputError, match=r"a/a_1\.tif: cannot be read from the zip"):
        open_source(path).read("a/a_1.tif")


def test_no_damage_to_a_zip_ends_in_another_exception(tmp_path: Path) -> None:
    whole = lay_out(tmp_path, TREE, "zip").read_bytes()
    path = tmp_path / "damaged.zip"
    refused = 0
    for at in range(0, len(whole), 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x5A]) + whole[at + 1 :])
        try:
            contents(open_source(path))
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 50
