"""What an encoded image says of itself, looked at before it is decoded: a decoder allocates whatever a header claims.

Refused here is what would be too large, what holds several pictures or colours that are none of ours, and a PNG that
is not whole: its checksums tell. TIFF and JPEG have none, so a bit that flipped within their pixels is not seen.
"""

import os
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from brainseg_cli.errors import InputError, UsageError

MAX_PIXELS = 1 << 26
"""Of one image, unless BRAINSEG_MAX_PIXELS says otherwise: 8192 x 8192, far above any slice."""
MOST_CHANNELS, MOST_BITS = 4, 64
MOST_TAGS, MOST_SCANS = 4096, 100
"""Of a TIFF's page and a progressive JPEG: each scan goes over the whole image again."""
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
TIFF_MAGIC = (b"II*\0", b"MM\0*")
BIG_TIFF_MAGIC = (b"II+\0", b"MM\0+")
OTHERS = {b"GIF8": "GIF", b"RIFF": "WebP", b"BM": "BMP", b"PK": "zip", b"\x1f\x8b": "gzip", b"%PDF": "PDF"}
"""How files begin that are called images by mistake."""
READ = "TIFF, PNG and JPEG are read"

WIDTH, HEIGHT, BITS, PHOTOMETRIC, CHANNELS, TILE_WIDTH, TILE_HEIGHT = 256, 257, 258, 262, 277, 322, 323
NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
"""TIFF's types of whole numbers."""
COLOURS = {5: "CMYK", 8: "CIELab", 9: "ICCLab", 10: "ITULab"}
"""Photometric interpretations that OpenCV hands on as if they were red, green and blue."""


class Header(NamedTuple):
    """`bits` are those of one channel of one pixel. Pages and frames beyond the first count as `several`."""

    kind: str
    width: int
    height: int
    channels: int
    bits: int
    colours: str = ""
    several: str = ""

    def __str__(self) -> str:
        return f"a {self.kind} of {self.width}x{self.height}, {self.channels} x {self.bits} bits"


def read_max_pixels() -> int:
    """The bound on width times height: BRAINSEG_MAX_PIXELS, else MAX_PIXELS. UsageError where it is no number."""
    text = os.environ.get("BRAINSEG_MAX_PIXELS", "")
    if not text:
        return MAX_PIXELS
    if not text.isdecimal() or not 0 < int(text) < 1 << 40:
        raise UsageError(f"BRAINSEG_MAX_PIXELS={text!r} is no number of pixels", hint=f"for example {MAX_PIXELS}")
    return int(text)


def check_pixels(width: int, height: int, where: Path | str) -> None:
    """InputError for an image without a pixel, or with more than may be."""
    if not (width and height):
        raise InputError(f"has no pixels: {width}x{height}", where=where)
    if width * height > (most := read_max_pixels()):
        told = f"is {width}x{height}, more than the {most} pixels that are read"
        raise InputError(told, where=where, hint="BRAINSEG_MAX_PIXELS raises the bound")


def check_header(data: bytes, where: Path | str) -> Header:
    """The header of an encoded TIFF, PNG or JPEG that may be decoded: of one picture, grey or RGB, not too large.

    InputError for anything else, and for a PNG that is cut off or of which a checksum does not fit.
    """
    is_dicom = data[128:132] == b"DICM"  # what stands before it may be a TIFF's magic number
    read = None if is_dicom else _find_reader(data)
    if read is None:
        known = "DICOM" if is_dicom else next((name for magic, name in OTHERS.items() if data.startswith(magic)), None)
        told = f"cannot be decoded as an image: it is {f'a {known}' if known else 'none that is known'}"
        raise InputError(told, where=where, hint=READ)
    try:
        header = read(data)
    except (struct.error, IndexError, OverflowError):  # an offset of 64 bits is beyond what Python can skip
        raise InputError("cannot be decoded as an image: its header is cut off", where=where) from None
    except ValueError as error:
        raise InputError(f"cannot be decoded as an image: {error}", where=where) from None
    check_pixels(header.width, header.height, where)
    if header.channels > MOST_CHANNELS or header.bits > MOST_BITS:
        raise InputError(f"is {header}: images of 1 or 3 channels are read", where=where)
    if header.colours:
        raise InputError(f"is in {header.colours}", where=where, hint="save it in grey or RGB")
    if header.several:
        raise InputError(header.several, where=where, hint="save them one slice a file")
    return header


def _find_reader(data: bytes) -> Callable[[bytes], Header] | None:
    if data.startswith(PNG_MAGIC):
        return _read_png
    if data.startswith(b"\xff\xd8\xff"):
        return _read_jpeg
    return _read_tiff if data[:4] in TIFF_MAGIC + BIG_TIFF_MAGIC else None


def _read_png(data: bytes) -> Header:
    """https://www.w3.org/TR/png-3: every chunk is looked at, for its checksum."""
    at = len(PNG_MAGIC)
    kinds: set[bytes] = set()
    while b"IEND" not in kinds:
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            raise ValueError("it is cut off")
        if zlib.crc32(memoryview(data)[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise ValueError("it is damaged, a checksum does not fit")
        if not kinds and (kind != b"IHDR" or length != 13):
            raise ValueError("its header is none")
        kinds.add(kind)
        at = end + 4
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    channels = {2: 3, 3: 3, 4: 2, 6: 4}.get(colour, 1)
    return Header("PNG", width, height, channels, bits, several="is an animation" if b"acTL" in kinds else "")


def _read_jpeg(data: bytes) -> Header:
    """ITU T.81, annex B: the segments up to the frame's."""
    if data.count(b"\xff\xda") > MOST_SCANS:
        raise ValueError(f"it has more than {MOST_SCANS} scans")
    at = 2
    while True:
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        if marker == 0xDA or data[at - 1] != 0xFF:
            raise ValueError("its header is none")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, height, width, channels = struct.unpack_from(">BHHB", data, at + 3)
            return Header("JPEG", width, height, channels, bits, colours="CMYK" if channels == 4 else "")
        at += 1 + int.from_bytes(data[at + 1 : at + 3], "big")


def _read_tiff(data: bytes) -> Header:
    """TIFF 6.0, section 2, and BigTIFF, whose numbers have eight bytes: the first page, and if there is another."""
    order = "<" if data[:1] == b"I" else ">"
    big = data[:4] in BIG_TIFF_MAGIC
    count_as, entry_as, offset_as = (f"{order}{code}" for code in (("Q", "HHQ", "Q") if big else ("H", "HHI", "I")))
    (at,) = struct.unpack_from(offset_as, data, 8 if big else 4)
    (count,) = struct.unpack_from(count_as, data, at)
    if count > MOST_TAGS:
        raise ValueError(f"it has {count} tags")
    at += struct.calcsize(count_as)
    value_at, size = struct.calcsize(entry_as), struct.calcsize(entry_as) + struct.calcsize(offset_as)
    tags = {}
    for entry in range(at, at + count * size, size):
        tag, kind, length = struct.unpack_from(entry_as, data, entry)
        if kind in NUMBERS and length:
            code = f"{order}{NUMBERS[kind]}"
            fits = struct.calcsize(code) * length <= size - value_at
            place = entry + value_at if fits else struct.unpack_from(offset_as, data, entry + value_at)[0]
            (tags[tag],) = struct.unpack_from(code, data, place)
    (following,) = struct.unpack_from(offset_as, data, at + count * size)
    return _describe_tiff(tags, several="has several pages" if following else "")


def _describe_tiff(tags: Mapping[int, int], *, several: str) -> Header:
    width, height = tags.get(WIDTH, 0), tags.get(HEIGHT, 0)
    tile = tags.get(TILE_WIDTH, 0) * tags.get(TILE_HEIGHT, 0)
    if tile > read_max_pixels():
        raise ValueError(f"it is in tiles of {tile} pixels")
    colours = COLOURS.get(tags.get(PHOTOMETRIC, 1), "")
    return Header("TIFF", width, height, tags.get(CHANNELS, 1), tags.get(BITS, 1), colours, several)
