"""Masks and maps that carry a note: the pixels and the note there and back, and notes from strangers."""

import io
import json
import os
import struct
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image as PILImage
from PIL.PngImagePlugin import PngInfo

from brainseg_cli import __version__
from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.io.embedded import MOST_BYTES, MOST_CHUNKS, PNG_MAGIC, encode_mask, encode_probs, read_about
from brainseg_cli.io.images import encode_image, read_mask, read_probs

laws = settings(max_examples=40, deadline=None)
SHAPE = (40, 56)
ABOUT = {
    "version": "0.1.0",
    "model": "ab" * 32,
    "threshold": 0.38,
    "image": "p ä/\n\udcff.tif",
    "options": {"tta": "none", "min_size": 0, "pixel_mm": None, "fill_holes": True},
    "members": [1, 2.5],
}
NOTE = json.dumps(ABOUT).encode()
SUFFIXES = (".png", ".tif")


def disc() -> np.ndarray:
    rows, columns = np.ogrid[:40, :56]
    return ((rows - 18) ** 2 + (columns - 30) ** 2 < 90).astype(np.uint8)


def keep(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def make_chunk(kind: bytes, data: bytes, *, length: int | None = None, checksum: int | None = None) -> bytes:
    told = len(data) if length is None else length
    return struct.pack(">I4s", told, kind) + data + struct.pack(">I", checksum or zlib.crc32(kind + data))


def insert_chunks(*chunks: bytes) -> bytes:
    """A mask's PNG with chunks after its header: 8 bytes of magic, 25 of IHDR."""
    plain = encode_mask(disc(), ".png")
    return plain[:33] + b"".join(chunks) + plain[33:]


def insert_note(text: bytes) -> bytes:
    return insert_chunks(make_chunk(b"tEXt", b"brainseg\0" + text))


def make_tiff(
    *entries: tuple[int, int, int, int], order: str = "<", tail: bytes = b"", count: int | None = None
) -> bytes:
    """A header, one directory of (tag, type, length, offset), then `tail`: at 10 + 12 for each entry."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    told = struct.pack(f"{order}H", len(entries) if count is None else count)
    return head + told + b"".join(struct.pack(f"{order}HHII", *entry) for entry in entries) + tail


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".PNG", ".TIF"])
@pytest.mark.parametrize("about", [None, ABOUT, {}])
def test_a_mask_there_and_back(tmp_path: Path, suffix: str, about: dict | None) -> None:
    mask = disc()
    path = keep(tmp_path, f"m{suffix}", encode_mask(mask, suffix, about))
    np.testing.assert_array_equal(read_mask(path), mask)
    raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert raw.dtype == np.uint8 and raw.shape == SHAPE and set(np.unique(raw)) == {0, 255}
    found = read_about(path)
    assert found == about and (found is None or list(found) == list(about))


@pytest.mark.parametrize("suffix", [".png", ".npy"])
def test_probabilities_there_and_back(tmp_path: Path, suffix: str) -> None:
    probs = np.linspace(0, 1, 40 * 56, dtype=np.float32).reshape(SHAPE)
    path = keep(tmp_path, f"p{suffix}", encode_probs(probs, suffix, ABOUT))
    back = read_probs(path)
    assert back.dtype == np.float32 and back.shape == SHAPE
    assert np.abs(back - probs).max() <= (0.5 / 65535 + 1e-7 if suffix == ".png" else 0)
    assert read_about(path) == (ABOUT if suffix == ".png" else None)
    assert keep(tmp_path, f"again{suffix}", encode_probs(back, suffix, ABOUT)).read_bytes() == path.read_bytes()


def test_probabilities_are_rounded_to_the_nearest_of_16_bits(tmp_path: Path) -> None:
    probs = np.array([[0, 1, 0.5, 1.4 / 65535, 1.6 / 65535]], np.float32)
    raw = cv2.imdecode(np.frombuffer(encode_probs(probs, ".png"), np.uint8), cv2.IMREAD_UNCHANGED)
    assert raw.dtype == np.uint16 and raw.tolist() == [[0, 65535, 32768, 1, 2]]
    transposed = np.asfortranarray(np.eye(3, 4, dtype=np.float64))
    array = np.load(io.BytesIO(encode_probs(transposed, ".npy")))
    assert array.dtype == np.float32 and array.flags.c_contiguous and array.tolist() == np.eye(3, 4).tolist()


@laws
@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 1)),
    st.dictionaries(st.text(max_size=5), st.recursive(st.none() | st.integers() | st.text(max_size=5), st.lists)),
    st.sampled_from(SUFFIXES),
)
def test_any_mask_and_any_note(tmp_path_factory: pytest.TempPathFactory, mask: np.ndarray, about: dict, suffix: str):
    data = encode_mask(mask, suffix, about)
    path = keep(tmp_path_factory.getbasetemp(), f"any{suffix}", data)
    np.testing.assert_array_equal(read_mask(path), mask)
    assert read_about(path) == about
    assert encode_mask(mask.copy(), suffix, dict(about)) == data


def test_the_same_bytes_whenever_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    probs = disc().astype(np.float32) / 3

    def encode_all() -> list[bytes]:
        return [
            *(encode_mask(disc(), suffix, about) for suffix in SUFFIXES for about in (None, ABOUT)),
            *(encode_probs(probs, suffix, ABOUT) for suffix in (".png", ".npy")),
        ]

    first = encode_all()
    assert len(set(first)) == len(first)
    monkeypatch.setattr(time, "time", lambda: 2e9)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert encode_all() == first
    assert not any(b"tIME" in data for data in first)


def test_a_file_is_no_larger_than_one_without_a_note_was() -> None:
    mask = np.kron(disc(), np.ones((6, 5), np.uint8))
    for suffix in SUFFIXES:
        assert len(encode_mask(mask, suffix)) <= len(encode_image(mask * np.uint8(255), suffix))
        assert len(encode_mask(mask, suffix, ABOUT)) - len(encode_mask(mask, suffix)) < len(NOTE) + 80


def test_other_programs_can_read_the_note(tmp_path: Path) -> None:
    with PILImage.open(keep(tmp_path, "m.png", encode_mask(disc(), ".png", ABOUT))) as image:
        assert image.text == {"brainseg": NOTE.decode()}
    with PILImage.open(keep(tmp_path, "m.tif", encode_mask(disc(), ".tif", ABOUT))) as image:
        assert json.loads(image.tag_v2[270]) == {"brainseg": ABOUT}
        assert image.tag_v2[305] == f"brainseg {__version__}"
        assert not {306, 315, 316} & set(image.tag_v2)  # when, by whom, on which machine


def test_a_note_that_could_not_be_read_back_is_not_written() -> None:
    for suffix in SUFFIXES:
        with pytest.raises(ValueError, match=str(MOST_BYTES)):
            encode_mask(disc(), suffix, {"a": "x" * MOST_BYTES})
        with pytest.raises(ValueError, match="JSON"):
            encode_mask(disc(), suffix, {"a": float("nan")})
        with pytest.raises(TypeError):
            encode_mask(disc(), suffix, {"a": np.float32(1)})


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_longest_note_is_read(tmp_path: Path, suffix: str) -> None:
    about = {"a": "x" * (MOST_BYTES - len('{"a": ""}') - (0 if suffix == ".png" else len('{"brainseg": }')))}
    assert read_about(keep(tmp_path, f"m{suffix}", encode_mask(disc(), suffix, about))) == about
    with pytest.raises(ValueError, match=str(MOST_BYTES + 1)):
        encode_mask(disc(), suffix, {"a": about["a"] + "x"})


@pytest.mark.parametrize("suffix", ["", ".jpg", ".npy", ".tif.gz"])
def test_a_mask_is_not_written_as_anything_else(suffix: str) -> None:
    with pytest.raises(UsageError, match=r"\.png or \.tif"):
        encode_mask(disc(), suffix)


def test_what_are_no_probabilities_is_not_written() -> None:
    for suffix in ("", ".tif", ".jpg"):
        with pytest.raises(UsageError, match=r"\.png or \.npy"):
            encode_probs(np.zeros(SHAPE, np.float32), suffix)
    for bad in (np.nan, -0.01, 1.01):
        for suffix in (".png", ".npy"):
            with pytest.raises(InputError, match=r"not within \[0, 1\]"):
                encode_probs(np.full(SHAPE, bad, np.float32), suffix)


def test_a_note_by_hand_is_read(tmp_path: Path) -> None:
    """The files made up below are refused for what is wrong with them and not for how they are made."""
    assert read_about(keep(tmp_path, "m.png", insert_note(NOTE))) == ABOUT
    other = make_chunk(b"tEXt", b"Title\0" + NOTE)
    assert read_about(keep(tmp_path, "n.png", insert_chunks(other, make_chunk(b"tEXt", b"brainseg\0" + NOTE)))) == ABOUT
    wrapped = b'{"brainseg": ' + NOTE + b"}"
    for order in "<>":
        described = (270, 2, len(wrapped), 34)
        data = make_tiff((256, 3, 1, 56), described, order=order, tail=wrapped)
        assert read_about(keep(tmp_path, "m.tif", data)) == ABOUT
        data = make_tiff((256, 3, 1, 56), (270, 2, len(wrapped) + 1, 34), order=order, tail=wrapped + b"\0")
        assert read_about(keep(tmp_path, "m.tif", data)) == ABOUT


NOT_A_NOTE = {
    "nothing": b"",
    "not JSON": b"{'model': 1}",
    "half of it": NOTE[:-1],
    "a list": b"[1, 2]",
    "a number": b"7",
    "a string": b'"brainseg"',
    "null": b"null",
    "NaN": b'{"threshold": NaN}',
    "infinite": b'{"threshold": 1e999}',
    "not ASCII": '{"image": "ä"}'.encode(),
    "not UTF-8": b'{"image": "\xff"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "deep": b'{"a": ' + b"[" * 30000 + b"]" * 30000 + b"}",
    "a number of 9000 digits": b'{"a": ' + b"9" * 9000 + b"}",
    "a second object": NOTE + NOTE,
    "longer than a note": b'{"a": "' + b"x" * MOST_BYTES + b'"}',
}


@pytest.mark.parametrize("text", NOT_A_NOTE.values(), ids=NOT_A_NOTE)
def test_text_that_is_no_note(tmp_path: Path, text: bytes) -> None:
    assert read_about(keep(tmp_path, "m.png", insert_note(text))) is None
    wrapped = b'{"brainseg": ' + text + b"}"
    assert read_about(keep(tmp_path, "m.tif", make_tiff((270, 2, len(wrapped), 22), tail=wrapped))) is None
    assert read_about(keep(tmp_path, "n.tif", make_tiff((270, 2, len(text), 22), tail=text))) is None


def test_notes_of_other_programs(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("Description", NOTE.decode())
    info.add_text("brainseg2", NOTE.decode())
    info.add_itxt("XML:com.adobe.xmp", "<x/>")
    buffer = io.BytesIO()
    PILImage.fromarray(disc()).save(buffer, "PNG", pnginfo=info)
    assert read_about(keep(tmp_path, "m.png", buffer.getvalue())) is None
    for described in ('{"shape": [40, 56]}', "ImageJ=1.53t\nunit=mm\n", '["brainseg"]', '{"brainseg": "yes"}'):
        buffer = io.BytesIO()
        PILImage.fromarray(disc()).save(buffer, "TIFF", tiffinfo={270: described})
        assert read_about(keep(tmp_path, "m.tif", buffer.getvalue())) is None


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_images_without_a_note(tmp_path: Path, suffix: str) -> None:
    assert read_about(keep(tmp_path, f"m{suffix}", encode_image(disc() * np.uint8(255), suffix))) is None


def test_what_is_no_image(tmp_path: Path) -> None:
    for data in (b"", b"\x89PNG", PNG_MAGIC, b"II*\0", b"II*\0\0\0\0\0", b"MM\0*\xff\xff\xff\xff", NOTE, b"\0" * 4096):
        assert read_about(keep(tmp_path, "m.png", data)) is None
    assert read_about(tmp_path) is None
    assert read_about(tmp_path / "absent.png") is None
    assert read_about(Path("a\0b.png")) is None
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    assert read_about(tmp_path / "loop.png") is None
    os.mkfifo(tmp_path / "pipe.png")
    assert read_about(tmp_path / "pipe.png") is None  # and is not waited for


def test_a_note_behind_the_pixels_is_not_looked_for(tmp_path: Path) -> None:
    plain = encode_mask(disc(), ".png")
    at = plain.rindex(b"IEND") - 4
    data = plain[:at] + make_chunk(b"tEXt", b"brainseg\0" + NOTE) + plain[at:]
    assert read_about(keep(tmp_path, "m.png", data)) is None


def test_a_damaged_note_is_none(tmp_path: Path) -> None:
    damaged = insert_note(NOTE).replace(b"0.38", b"0.83")
    assert read_about(keep(tmp_path, "m.png", damaged)) is None


def test_lengths_that_lie(tmp_path: Path) -> None:
    for length in (2**32 - 1, 2**31, MOST_BYTES + 10, len(NOTE) + 8):
        chunk = make_chunk(b"tEXt", b"brainseg\0" + NOTE, length=length)
        assert read_about(keep(tmp_path, "m.png", insert_chunks(chunk))) is None
    wrapped = b'{"brainseg": ' + NOTE + b"}"
    for length in (2**32 - 1, 2**31, 0, 3, len(NOTE)):
        assert read_about(keep(tmp_path, "m.tif", make_tiff((270, 2, length, 22), tail=wrapped))) is None
    for count in (0, 65535):
        data = make_tiff((270, 2, len(wrapped), 22), tail=wrapped, count=count)
        assert read_about(keep(tmp_path, "m.tif", data)) is None
    for tag, kind, at in ((270, 1, 22), (270, 7, 22), (271, 2, 22), (270, 2, 2**32 - 1)):
        assert read_about(keep(tmp_path, "m.tif", make_tiff((tag, kind, len(wrapped), at), tail=wrapped))) is None


def test_a_large_chunk_is_passed_by_and_not_read(tmp_path: Path) -> None:
    huge = 2**31 - 1
    path = tmp_path / "m.png"
    with path.open("wb") as file:  # a sparse file of 4 GB
        file.write(encode_mask(disc(), ".png")[:33])
        for kind in (b"tEXt", b"zTXt"):
            file.write(struct.pack(">I4s", huge, kind) + b"brainseg\0")
            file.seek(huge - 9 + 4, os.SEEK_CUR)
        file.write(make_chunk(b"tEXt", b"brainseg\0" + NOTE))
    started = time.perf_counter()
    assert read_about(path) == ABOUT
    assert time.perf_counter() - started < 1


def test_compressed_text_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = zlib.compress(b'{"a": "' + b"x" * 50_000_000 + b'"}', 9)
    assert len(packed) < MOST_BYTES
    bomb = insert_chunks(
        make_chunk(b"zTXt", b"brainseg\0\0" + packed),
        make_chunk(b"iTXt", b"brainseg\0\1\0\0\0" + packed),
        make_chunk(b"iCCP", b"brainseg\0\0" + packed),
    )
    monkeypatch.setattr(zlib, "decompress", None)
    monkeypatch.setattr(zlib, "decompressobj", None)
    assert read_about(keep(tmp_path, "bomb.png", bomb)) is None


def test_no_end_of_chunks(tmp_path: Path) -> None:
    note = make_chunk(b"tEXt", b"brainseg\0" + NOTE)
    nothing = make_chunk(b"tEXt", b"")
    assert read_about(keep(tmp_path, "m.png", insert_chunks(*[nothing] * (MOST_CHUNKS - 2), note))) == ABOUT
    assert read_about(keep(tmp_path, "m.png", insert_chunks(*[nothing] * MOST_CHUNKS, note))) is None


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_truncation_and_every_changed_byte(tmp_path: Path, suffix: str) -> None:
    """No fault is raised; a PNG's note is the one that was written or none, a TIFF's (it has no checksum) a dict."""
    data = encode_mask(disc(), suffix, ABOUT)
    path = tmp_path / f"m{suffix}"
    for end in range(len(data)):
        path.write_bytes(data[:end])
        assert read_about(path) in (None, ABOUT)
    for at in range(len(data)):
        for flip in (0x01, 0xFF):
            path.write_bytes(data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :])
            found = read_about(path)
            assert found in (None, ABOUT) if suffix == ".png" else found is None or isinstance(found, dict)


@laws
@given(st.binary(max_size=200), st.sampled_from([PNG_MAGIC, PNG_MAGIC + b"\0\0\0\x20tEXt", b"II*\0", b"MM\0*"]))
def test_any_bytes_at_all(tmp_path_factory: pytest.TempPathFactory, tail: bytes, head: bytes) -> None:
    assert read_about(keep(tmp_path_factory.getbasetemp(), "bytes", head + tail)) is None
