"""What is refused before a decoder sees it, and what is not: by headers made up here, byte by byte."""

import io
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage

from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.io.headers import MAX_PIXELS, MOST_SCANS, Header, check_header
from brainseg_cli.io.images import decode_image

PIXELS = np.arange(40 * 56 * 3, dtype=np.uint32).reshape(40, 56, 3).astype(np.uint8)


def save(picture: PILImage.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def make_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def make_png(width: int, height: int, *extra: tuple[bytes, bytes]) -> bytes:
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), *extra]
    chunks += [(b"IDAT", zlib.compress(bytes(99))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(make_chunk(*chunk) for chunk in chunks)


def make_tiff(
    width: int, height: int, order: str = "<", *, big: bool = False, following: int = 0, **tags: int
) -> bytes:
    """A page without pixels; `t277=4` is the tag of that number."""
    known = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 0, 277: 1, 278: height, 279: 100}
    known |= {int(name[1:]): value for name, value in tags.items()}
    count, entry, offset = ("Q", "HHQQ", "Q") if big else ("H", "HHII", "I")
    head = {("<", False): b"II*\0", (">", False): b"MM\0*", ("<", True): b"II+\0", (">", True): b"MM\0+"}[order, big]
    head += struct.pack(f"{order}HHQ", 8, 0, 16) if big else struct.pack(f"{order}I", 8)
    page = struct.pack(f"{order}{count}", len(known))
    for tag, value in sorted(known.items()):
        page += struct.pack(f"{order}{entry}", tag, 16 if big else 4, 1, value)
    return head + page + struct.pack(f"{order}{offset}", following)


def make_jpeg(width: int, height: int, channels: int = 1) -> bytes:
    frame = struct.pack(">BHHB", 8, height, width, channels) + bytes(3 * channels)
    return b"\xff\xd8\xff\xe0\0\4ab\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame + b"\xff\xda\xff\xd9"


def fault(data: bytes) -> str:
    with pytest.raises(InputError) as caught:
        check_header(data, "x.png")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_whole_image_is_described(kind: str, mode: str) -> None:
    header = check_header(save(PILImage.fromarray(PIXELS).convert(mode), kind), "x")
    assert header == Header(kind, 56, 40, len(mode), 8)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("big", [False, True])
def test_tiffs_of_both_orders_and_sizes(order: str, big: bool) -> None:
    assert check_header(make_tiff(56, 40, order, big=big), "x") == Header("TIFF", 56, 40, 1, 8)
    assert "is 60000x60000, more than the" in fault(make_tiff(60000, 60000, order, big=big))
    assert "has several pages" in fault(make_tiff(56, 40, order, big=big, following=8))


@pytest.mark.parametrize("make", [make_png, make_tiff, make_jpeg])
def test_sizes_are_bounded_and_the_bound_can_be_moved(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    side = int(MAX_PIXELS**0.5)
    assert check_header(make(side, side), "x").width == side
    assert f"is {side + 1}x{side}, more than the {MAX_PIXELS} pixels" in fault(make(side + 1, side))
    assert "has no pixels: 0x10" in fault(make(0, 10)) and "has no pixels: 10x0" in fault(make(10, 0))
    monkeypatch.setenv("BRAINSEG_MAX_PIXELS", "99")
    assert check_header(make(9, 11), "x").height == 11
    assert "BRAINSEG_MAX_PIXELS raises the bound" in fault(make(10, 10))
    monkeypatch.setenv("BRAINSEG_MAX_PIXELS", str(side * side * 4))
    assert check_header(make(2 * side, 2 * side), "x").width == 2 * side


@pytest.mark.parametrize("text", ["many", "-1", "0", "1e6", "9" * 20])
def test_a_bound_that_is_none_is_wrong_usage(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAINSEG_MAX_PIXELS", text)
    with pytest.raises(UsageError, match="is no number of pixels"):
        check_header(make_png(9, 9), "x")


def test_a_bomb_takes_no_memory() -> None:
    bombs = [
        make_tiff(60000, 60000),
        make_tiff(10, 10, t322=60000, t323=60000),
        make_tiff(1000, 1000, t277=60000),
        make_png(60000, 60000),
        make_jpeg(60000, 60000),
    ]
    tracemalloc.start()
    try:
        for bomb in bombs:
            assert len(bomb) < 300
            with pytest.raises(InputError):
                decode_image(bomb, "x")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_animations_and_other_kinds_are_refused_by_their_content() -> None:
    picture = PILImage.fromarray(PIXELS)
    film = {"save_all": True, "append_images": [picture.rotate(90)]}
    assert "is an animation" in fault(save(picture, "PNG", **film))
    assert "has several pages" in fault(save(picture, "TIFF", **film))
    assert "it is a GIF" in fault(save(picture, "GIF", **film))
    for preamble in (b"\0\0\0\0", b"II*\0"):  # as a file that is DICOM and TIFF has it
        assert "it is a DICOM" in fault(preamble.ljust(128, b"\0") + b"DICM" + bytes(400))
    assert "it is a WebP" in fault(save(picture, "WEBP", **film))
    assert "it is a BMP" in fault(save(picture, "BMP"))
    assert "it is none that is known" in fault(b"anything else")


@pytest.mark.parametrize(("mode", "kind"), [("CMYK", "JPEG"), ("CMYK", "TIFF"), ("LAB", "TIFF")])
def test_colours_that_would_be_taken_for_others_are_refused(mode: str, kind: str) -> None:
    told = {"CMYK": "is in CMYK", "LAB": "is in CIELab"}[mode]
    assert told in fault(save(PILImage.fromarray(PIXELS).convert(mode), kind))


def test_a_palette_reads_as_its_colours() -> None:
    picture = PILImage.fromarray(PIXELS).quantize(16)
    wanted = np.asarray(picture.convert("RGB"))
    for kind in ("PNG", "TIFF"):
        np.testing.assert_array_equal(decode_image(save(picture, kind), "x"), wanted)


@pytest.mark.parametrize("at", [9, 20, 30, 200, -30, -8])
def test_any_bit_that_flipped_in_a_png_is_seen(at: int, capfd: pytest.CaptureFixture[str]) -> None:
    data = bytearray(save(PILImage.fromarray(PIXELS), "PNG"))
    data[at] ^= 4
    assert "cannot be decoded as an image" in fault(bytes(data))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_one_that_is_cut_off_is_refused_wherever(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    data = save(PILImage.fromarray(PIXELS), kind)
    for length in range(8, len(data) - 8, 97):
        with pytest.raises(InputError):
            decode_image(data[:length], "x")
    assert capfd.readouterr().err == ""


def test_scans_and_tags_are_counted() -> None:
    assert f"more than {MOST_SCANS} scans" in fault(make_jpeg(9, 9) + b"\xff\xda" * MOST_SCANS)
    assert "tags" in fault(b"II*\0\x08\0\0\0\xff\xff" + bytes(99))


def test_an_offset_beyond_all_files_is_a_fault_of_the_file() -> None:
    assert "header is cut off" in fault(b"II+\0\x08\0\0\0" + b"\xff" * 8)
    assert "header is cut off" in fault(b"II*\0" + b"\xff" * 4)
