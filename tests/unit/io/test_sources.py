"""What a command line names: files, lists whole or growing, one image on stdin; chosen, shared out, mirrored."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.io.images import encode_image
from brainseg_cli.io.sources import Inputs, Request, Shard, open_inputs, parse_shard, read_input


def touch(folder: Path, *names: str | bytes) -> None:
    for name in names:
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def find(*arguments: object, stdin: bytes = b"", **options: object) -> Inputs:
    return open_inputs(Request(tuple(map(str, arguments)), **options), io.BytesIO(stdin))  # type: ignore[arg-type]


def relatives(inputs: Inputs) -> list[str]:
    return [item.relative.as_posix() for item in inputs]


@pytest.fixture
def slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """lgg/p1/p1_{1,2,10}.tif and lgg/p2/p2_1.tif, each beside its mask."""
    for name in ("p1/p1_1", "p1/p1_2", "p1/p1_10", "p2/p2_1"):
        touch(tmp_path / "lgg", f"{name}.tif", f"{name}_mask.tif")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "lgg"


def test_arguments_are_files_folders_and_globs(slices: Path) -> None:
    found = find("lgg")
    assert found.total == 4
    assert relatives(found) == ["p1/p1_1.tif", "p1/p1_2.tif", "p1/p1_10.tif", "p2/p2_1.tif"]
    assert relatives(find("lgg/*/*_1.tif")) == ["p1/p1_1.tif", "p2/p2_1.tif"]
    assert relatives(find("lgg/p2/p2_1.tif", "lgg/p1")) == ["p2/p2_1.tif", "p1/p1_1.tif", "p1/p1_2.tif", "p1/p1_10.tif"]


@pytest.mark.parametrize("source", ["file", "stdin"])
@pytest.mark.parametrize("separator", [b"\n", b"\r\n", b"\0"])
def test_a_list_in_its_own_order_without_masks_and_doubles(slices: Path, source: str, separator: bytes) -> None:
    listed = [
        b"lgg/p2/p2_1.tif", b"", b"lgg/p1/p1_2.tif", b"lgg/p1/p1_2_mask.tif", b"./lgg/p1/../p2/p2_1.tif",
        os.fsencode(slices / "p1" / "p1_1.tif"),
    ]  # fmt: skip
    text = separator.join(listed)
    option = "files0_from" if separator == b"\0" else "files_from"
    (slices.parent / "list").write_bytes(text)
    found = find(stdin=text, **{option: "-" if source == "stdin" else "list"})
    assert found.total == (None if source == "stdin" else 3)
    paths = [item.path for item in found]
    assert paths == [Path("lgg/p2/p2_1.tif"), Path("lgg/p1/p1_2.tif"), slices / "p1" / "p1_1.tif"]
    assert found.passed_over == 1


def test_a_name_may_be_no_text_and_of_several_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    odd = [b"a\nb.png", b" c .png", b"\xff\xfe.png", "Å 患.png".encode(), b"d\r.png"]
    touch(tmp_path, *odd)
    found = find(stdin=b"\0".join(odd) + b"\0", files0_from="-")
    assert [os.fsencode(item.relative) for item in found] == odd
    found = find(stdin=b"\n".join(odd[1:]), files_from="-")
    assert [os.fsencode(item.path) for item in found] == odd[1:]


def test_a_list_comes_in_pieces_of_any_size() -> None:
    class Dripping(io.RawIOBase):
        def __init__(self, data: bytes) -> None:
            self.data = data

        def read(self, size: int = -1) -> bytes:
            piece, self.data = self.data[:1], self.data[1:]
            return piece

    request = Request(files_from="-")
    found = open_inputs(request, Dripping(b"a/x.png\r\nb/y.png"))  # type: ignore[arg-type]
    assert relatives(found) == ["a/x.png", "b/y.png"]


def test_each_of_a_growing_list_is_there_before_the_next_is_written() -> None:
    asked: list[str] = []

    class Producer(io.RawIOBase):
        lines: Iterator[bytes] = iter([b"a.png\n", b"b.png\n", b""])

        def read(self, size: int = -1) -> bytes:
            asked.append("more")
            return next(self.lines)

    walk = iter(open_inputs(Request(files_from="-"), Producer()))  # type: ignore[arg-type]
    assert next(walk).path == Path("a.png") and len(asked) == 1
    assert next(walk).path == Path("b.png") and len(asked) == 2
    assert next(walk, None) is None


def test_a_missing_path_and_a_folder_in_a_list_are_for_the_reader_to_fail_with(slices: Path) -> None:
    found = list(find(stdin=b"nowhere.tif\nlgg/p1\n" + b"x" * 5000, files_from="-"))
    assert [item.path.name[:9] for item in found] == ["nowhere.t", "p1", "xxxxxxxxx"]
    for item, told in zip(found, ("is not there", "is a folder, not a file", "too long"), strict=True):
        with pytest.raises(InputError, match=told):
            read_input(item)


def test_masks_of_a_list_are_known_by_their_suffix_or_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    touch(
        tmp_path, "A.TIF", "A_mask.TIF", "b.png", "b_mask.tif", "lonely_mask.png", "set/Images/c.png", "set/masks/c.png"
    )
    touch(tmp_path, "only/masks/d.png")
    text = "\n".join(path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*")) if path.is_file())
    found = find(stdin=text.encode(), files_from="-")
    images = ["A.TIF", "b.png", "lonely_mask.png", "only/masks/d.png"]
    assert relatives(found) == [*images, "set/Images/c.png", "set/masks/c.png"] and found.passed_over == 2
    (tmp_path / "set" / "Images").rename(tmp_path / "set" / "images")
    found = find(stdin=text.replace("Images", "images").encode(), files_from="-")
    assert relatives(found) == [*images, "set/images/c.png"] and found.passed_over == 3


@pytest.mark.parametrize("option", ["files_from", "files0_from"])
@pytest.mark.parametrize("text", [b"", b"\n\n", b"\r\n"])
def test_a_list_of_nothing(tmp_path: Path, option: str, text: bytes) -> None:
    with pytest.raises(InputError, match=r"stdin: the list names no image"):
        find(stdin=text, **{option: "-"})
    (tmp_path / "list").write_bytes(text)
    with pytest.raises(InputError, match=r"list: names no image"):
        find(**{option: str(tmp_path / "list")})


def test_a_list_of_the_other_kind_is_named(tmp_path: Path) -> None:
    for listed in ("-", str(tmp_path / "list")):
        (tmp_path / "list").write_bytes(b"a.png\0b.png\0")
        with pytest.raises(InputError, match=r"(stdin|list): is no list of a path a line .*--files0-from"):
            list(find(stdin=b"a.png\0b.png\0", files_from=listed))
    with pytest.raises(InputError, match="nowhere: is not there"):
        find(files_from=str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="is a folder, not a file"):
        find(files0_from=str(tmp_path))


def test_one_image_on_stdin() -> None:
    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    found = find("-", stdin=encode_image(image, ".png"))
    (item,) = found
    assert found.total == 1 and (item.path, item.relative) == (Path("-"), Path("stdin"))
    assert (item.patient_id, item.slice_index) == (None, None)
    assert (read_input(item) == image).all()
    with pytest.raises(InputError, match="stdin: cannot be decoded"):
        read_input(next(iter(find("-", stdin=b"no image"))))
    with pytest.raises(InputError, match="stdin: is empty"):
        find("-")


@pytest.mark.parametrize(
    ("arguments", "options", "told"),
    [
        ((), {}, "no input was given"),
        (("",), {}, "empty name"),
        (("-", "lgg"), {}, "stands alone"),
        (("lgg",), {"files_from": "-"}, "two ways"),
        ((), {"files_from": "-", "files0_from": "list"}, "two ways"),
    ],
)
def test_what_makes_no_sense(slices: Path, arguments: tuple[str, ...], options: dict[str, str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        find(*arguments, **options)


def test_include_and_exclude_choose_among_folders_globs_and_lists(slices: Path) -> None:
    everything = b"lgg/p1/p1_1.tif\nlgg/p1/p1_10.tif\nlgg/p2/p2_1.tif\n"
    assert relatives(find("lgg", include=("p1/*", "p2/*"), exclude=("*_10.tif",))) == [
        "p1/p1_1.tif", "p1/p1_2.tif", "p2/p2_1.tif",
    ]  # fmt: skip
    assert relatives(find("lgg", include=("*_1.tif",))) == ["p1/p1_1.tif", "p2/p2_1.tif"]
    assert relatives(find("lgg/*/*.tif", exclude=("lgg/p1/*",))) == ["p2/p2_1.tif"]
    assert relatives(find(stdin=everything, files_from="-", exclude=("*/p1/*",))) == ["lgg/p2/p2_1.tif"]
    assert relatives(find("lgg/p1/p1_2.tif", "lgg/p2", exclude=("p1_2.tif",)))[0] == "p1/p1_2.tif"  # named by itself
    for source, told in (
        ("lgg", "holds no image that --include and --exclude let through"),
        ("nothing*", "matches no"),
    ):
        with pytest.raises(InputError, match=told):
            find(source, include=("*.jpg",))
    with pytest.raises(InputError, match="names no image"):
        find(stdin=everything, files_from="-", include=("*.jpg",))


def test_mirrored_below_relative_to_and_never_out_of_the_folder(slices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = slices.parent
    listed = os.fsencode(slices / "p2" / "p2_1.tif")
    assert relatives(find(stdin=listed, files_from="-")) == [str(slices.relative_to("/") / "p2" / "p2_1.tif")]
    for options in ({"stdin": listed, "files_from": "-"}, {"stdin": b"lgg/p1/../p2/p2_1.tif", "files0_from": "-"}):
        assert relatives(find(relative_to=slices, **options)) == ["p2/p2_1.tif"]
    assert relatives(find("lgg/p2", relative_to=root)) == ["lgg/p2/p2_1.tif"]
    assert relatives(find("lgg/p2/p2_1.tif", relative_to=Path("lgg"))) == ["p2/p2_1.tif"]
    monkeypatch.chdir(slices / "p1")
    climbing = relatives(find(stdin=b"../p2/p2_1.tif\n../../lgg/p1/../../x.tif\n/../y.tif", files_from="-"))
    assert climbing == ["p2/p2_1.tif", "x.tif", "y.tif"]
    for arguments, options in (((slices,), {}), ((), {"stdin": listed, "files_from": "-"})):
        with pytest.raises(UsageError, match=r"p\d_1\.tif is not below --relative-to"):
            list(find(*arguments, relative_to=root / "elsewhere", **options))


def test_shares_are_disjoint_complete_and_do_not_depend_on_the_order() -> None:
    listed = [f"p{number % 7}/p{number % 7}_{number}.tif" for number in range(60)]
    text, turned = "\n".join(listed).encode(), "\n".join(reversed(listed)).encode()
    for whole_folders in (False, True):
        shares = []
        for part in (1, 2, 3):
            options = {"files_from": "-", "shard": Shard(part, 3), "whole_folders": whole_folders}
            share = relatives(find(stdin=text, **options))
            assert share and sorted(share) == sorted(relatives(find(stdin=turned, **options)))
            shares.append(share)
        assert sorted(name for share in shares for name in share) == sorted(listed)
        if whole_folders:
            folders = [{name.split("/")[0] for name in share} for share in shares]
            assert sum(map(len, folders)) == 7 == len(set().union(*folders))


def test_a_share_knows_the_others_and_may_be_empty(slices: Path) -> None:
    shares = [find("lgg", shard=Shard(part, 9)) for part in range(1, 10)]
    assert sum(found.total or 0 for found in shares) == 4 and any(found.total == 0 for found in shares)
    assert all((found.total or 0) + len(found.elsewhere) == 4 for found in shares)
    (slices / "p1" / "p1_2.png").touch()  # what would be written to one place is in one share
    owners = [part for part in range(1, 5) for name in relatives(find("lgg", shard=Shard(part, 4))) if "p1_2." in name]
    assert len(owners) == 2 and len(set(owners)) == 1


@pytest.mark.parametrize("text", ["", "1", "0/3", "4/3", "-1/3", "1/0", "a/b", "1/2/3", "1.0/2"])
def test_no_share(text: str) -> None:
    with pytest.raises(UsageError, match=r"is no share .*2/8 is the second of eight"):
        parse_shard(text)


def test_a_share() -> None:
    assert parse_shard("2/8") == Shard(2, 8) and parse_shard("1/1").owns(Path())
