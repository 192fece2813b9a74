"""What an archive from a stranger may not do: lead out, unpack without end, or say one thing and hold another."""

import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from brainseg_cli.errors import InputError
from brainseg_cli.io import zips
from brainseg_cli.io.archives import open_source
from brainseg_cli.io.zips import Zip
from brainseg_cli.types import ZipBounds

BOUNDS = ZipBounds()
DATA = bytes(range(256)) * 4
LINK = 0o120777 << 16


def write(path: Path, *entries: str | zipfile.ZipInfo, data: bytes = DATA, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for entry in entries:
            archive.writestr(entry, data)
    return path


def special(name: str, mode: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = mode
    return entry


def patch(path: Path, signature: bytes, at: int, value: bytes) -> None:
    """Overwrite a field of every header of a kind."""
    data = bytearray(path.read_bytes())
    start = data.find(signature)
    while start >= 0:
        data[start + at : start + at + len(value)] = value
        start = data.find(signature, start + 4)
    path.write_bytes(data)


def fault(path: Path, bounds: ZipBounds = BOUNDS) -> str:
    with pytest.raises(InputError) as caught:
        Zip(path, bounds)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("../evil.png", "leads out of the archive"),
        ("p/../../evil.png", "leads out of the archive"),
        ("/etc/evil.png", "leads out of the archive"),
        ("C:/evil.png", "leads out of the archive"),
        ("p\\evil.png", "has a backslash"),
        (special("link.png", LINK), "is a link or a device"),
        (special("device.png", 0o020666 << 16), "is a link or a device"),
        (special("pipe.png", 0o010666 << 16), "is a link or a device"),
    ],
)
def test_an_entry_that_leads_elsewhere_is_refused_by_name_and_the_others_are_read(
    entry: str | zipfile.ZipInfo, told: str, tmp_path: Path
) -> None:
    source = open_source(write(tmp_path / "a.zip", "p/good.png", entry))
    name = entry if isinstance(entry, str) else entry.filename
    assert list(source.sizes) == ["p/good.png"] and source.read("p/good.png") == DATA
    (line,) = source.refused
    assert line.startswith(f"{tmp_path}/a.zip/{name}: ") and told in line
    with pytest.raises(InputError, match="holds no image that is read: 1 were refused; first: "):
        open_source(write(tmp_path / "alone.zip", entry))


def test_a_name_that_comes_twice_is_read_once_and_told(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        write(tmp_path / "a.zip", "p/x.png", "p/x.png")
    source = open_source(tmp_path / "a.zip")
    assert list(source.sizes) == ["p/x.png"]
    assert "stands in the archive twice" in source.refused[0]


def test_encrypted_and_otherwise_compressed_entries_are_told(tmp_path: Path) -> None:
    path = write(tmp_path / "locked.zip", "p/x.png")
    patch(path, b"PK\1\2", 8, b"\1\0")
    assert "is encrypted" in Zip(path, BOUNDS).refused[0]
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        assert "another way than deflate" in Zip(write(tmp_path / "b.zip", "p/x.png", method=method), BOUNDS).refused[0]


def test_bounds_are_checked_before_anything_is_unpacked_and_can_be_moved(tmp_path: Path) -> None:
    path = write(tmp_path / "bomb.zip", "p/x.png", "p/y.png", data=bytes(10_000_000), method=zipfile.ZIP_DEFLATED)
    assert "times its size, more than 100 (--max-zip-ratio" in fault(path)
    assert "would unpack to 0.0 GB, more than 0.0 (--max-zip-gb" in fault(path, ZipBounds(unpacked_bytes=19_999_999))
    assert "has more than 1 entries (--max-zip-entries" in fault(path, ZipBounds(entries=1))
    opened = Zip(path, ZipBounds(entries=2, unpacked_bytes=20_000_000, ratio=2000))
    assert opened.read("p/y.png") == bytes(10_000_000)


def test_a_long_list_of_contents_is_refused_unread(tmp_path: Path) -> None:
    path = write(tmp_path / "many.zip", *(f"{n:0250}.txt" for n in range(3000)), data=b"")
    tracemalloc.start()
    try:
        assert "has a list of contents of" in fault(path, ZipBounds(entries=10))
        assert tracemalloc.get_traced_memory()[1] < 1 << 18
    finally:
        tracemalloc.stop()


def test_one_entry_is_no_larger_than_an_image_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.zip", "p/x.png", "p/y.png")
    monkeypatch.setattr(zips, "most_encoded", lambda: len(DATA) - 1)
    assert "more than the 1023 that are read" in Zip(path, BOUNDS).refused[0]


def test_a_header_that_lies_is_not_believed(tmp_path: Path) -> None:
    """It promises 100 bytes and holds ten million: a hundred are unpacked, and do not fit their checksum."""
    path = write(tmp_path / "liar.zip", "p/x.png", data=bytes(10_000_000), method=zipfile.ZIP_DEFLATED)
    patch(path, b"PK\1\2", 24, struct.pack("<I", 100))
    opened = Zip(path, BOUNDS)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"p/x\.png: cannot be read from the zip"):
            opened.read("p/x.png")
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_entries_over_the_same_bytes_are_a_bomb(tmp_path: Path) -> None:
    path = write(tmp_path / "fifield.zip", "p/x.png", "p/y.png")
    data = bytearray(path.read_bytes())
    second = data.find(b"PK\1\2", data.find(b"PK\1\2") + 4)
    data[second + 42 : second + 46] = struct.pack("<I", 40)  # within the first one's bytes
    path.write_bytes(data)
    assert "is a zip bomb: entries share bytes" in fault(path)


def test_a_zip_within_a_zip_is_not_looked_into(tmp_path: Path) -> None:
    path = write(tmp_path / "outer.zip", "inner.zip", data=write(tmp_path / "i.zip", "p/x.png").read_bytes())
    with pytest.raises(InputError, match=r"holds no image .a zip within a zip is not: unpack the outer one"):
        open_source(path)
