"""Masks and probability maps as files that say what they were made from, and that note read back.

The note of a PNG is a tEXt chunk `brainseg` that holds JSON; that of a TIFF is the JSON `{"brainseg": ...}` as
ImageDescription, beside a Software tag. Nothing in a file depends on when it was written. A note is read without
Pillow: it comes from a file that anyone may have made, and Pillow unpacks what others put beside the note.
"""

import io
import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image as PILImage
from PIL.PngImagePlugin import PngInfo

from brainseg_cli import __version__
from brainseg_cli.errors import InputError, UsageError
from brainseg_cli.io.headers import PNG_MAGIC, TIFF_MAGIC
from brainseg_cli.io.images import ARRAY_SUFFIX
from brainseg_cli.types import Json, Mask, Probs

KEY = "brainseg"
MOST_BYTES = 1 << 16
"""Of a note, as JSON. A longer one is neither written nor read."""
MOST_CHUNKS = 256
"""Of a PNG that are looked through, those of pixels not counted."""
DESCRIPTION, SOFTWARE, ASCII = 270, 305, 2
TIFF_SUFFIXES = (".tif", ".tiff")


def encode_mask(mask: Mask, suffix: str, about: Json | None = None) -> bytes:
    """A mask (H, W), not 0 is tumour, as 8 bits of 0 and 255 in a `.png` or `.tif`, with `about` as its note.

    The same mask and note give the same bytes. UsageError for another suffix; ValueError for a note above
    MOST_BYTES or with NaN in it, TypeError for one that is no JSON.
    """
    shown = (mask > 0).astype(np.uint8) * np.uint8(255)
    if suffix.lower() in TIFF_SUFFIXES:
        return _encode_tiff(shown, about)
    if suffix.lower() == ".png":
        return _encode_png(shown, about)
    raise UsageError(f"a mask is written as .png or .tif, not as {suffix or 'a file without a suffix'}")


def encode_probs(probs: Probs, suffix: str, about: Json | None = None) -> bytes:
    """Probabilities (H, W) in [0, 1] as a `.png` of 16 bits, round(p * 65535), or as a `.npy` of float32.

    The note goes into the PNG as in `encode_mask`; a `.npy` has no place for one. UsageError for another suffix;
    InputError for a probability outside [0, 1] or NaN.
    """
    if probs.size and not (probs.min() >= 0 and probs.max() <= 1):  # written so that a NaN fails it too
        raise InputError(f"probabilities run from {probs.min()} to {probs.max()}, not within [0, 1]")
    if suffix.lower() == ".png":
        return _encode_png(np.rint(probs * np.float32(65535)).astype(np.uint16), about)
    if suffix.lower() != ARRAY_SUFFIX:
        raise UsageError(f"probabilities are written as .png or .npy, not as {suffix or 'a file without a suffix'}")
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(probs, np.float32), allow_pickle=False)
    return buffer.getvalue()


def read_about(path: Path) -> Json | None:
    """The note of a file that `encode_mask` or `encode_probs` made; None for any other file, and for a damaged note.

    Never raises for what it finds at `path`. What it returns is whatever JSON object stands there, to be checked as
    any input; that there is one says nothing of the pixels, which are not looked at.
    """
    try:
        if not path.is_file():  # a pipe would be waited for
            return None
        with path.open("rb") as file:
            magic = file.read(8)
            if magic == PNG_MAGIC:
                about = _load(_find_text(file))
            elif magic[:4] in TIFF_MAGIC:
                described = _load(_find_description(file, magic))
                about = described.get(KEY) if isinstance(described, dict) else None
            else:
                return None
    except (OSError, ValueError, struct.error, RecursionError):
        return None
    return about if isinstance(about, dict) else None


def _encode_png(pixels: np.ndarray, about: Json | None) -> bytes:
    note = PngInfo()
    if about is not None:
        note.add_text(KEY, _dump(about))
    buffer = io.BytesIO()
    # long runs of one value are most of a mask and of a map: to look for nothing else is quicker, and packs as tight
    PILImage.fromarray(pixels).save(buffer, "PNG", pnginfo=note, compress_level=6, compress_type=zlib.Z_RLE)
    return buffer.getvalue()


def _encode_tiff(pixels: np.ndarray, about: Json | None) -> bytes:
    note = {} if about is None else {DESCRIPTION: _dump({KEY: about}), SOFTWARE: f"{KEY} {__version__}"}
    buffer = io.BytesIO()
    PILImage.fromarray(pixels).save(buffer, "TIFF", tiffinfo=note, compression="tiff_adobe_deflate")
    return buffer.getvalue()


def _dump(value: Json) -> str:
    text = json.dumps(value, allow_nan=False)
    if len(text) > MOST_BYTES:
        raise ValueError(f"a note of {len(text)} bytes is longer than the {MOST_BYTES} that are read back")
    return text


def _load(text: bytes) -> Any:
    value = json.loads(text.decode("ascii"))
    json.dumps(value, allow_nan=False)  # ValueError for NaN, and for 1e999, which reads as infinite
    return value


def _find_text(file: BinaryIO) -> bytes:
    """The text of the first tEXt chunk `brainseg` before the pixels; empty where there is none, or a damaged one."""
    for _ in range(MOST_CHUNKS):
        length, kind = struct.unpack(">I4s", file.read(8))
        if kind in (b"IDAT", b"IEND"):
            break
        if kind != b"tEXt" or length > len(KEY) + 1 + MOST_BYTES:
            file.seek(length + 4, os.SEEK_CUR)
            continue
        data = file.read(length)
        (checksum,) = struct.unpack(">I", file.read(4))
        keyword, _, text = data.partition(b"\0")
        if keyword == KEY.encode():
            return text if zlib.crc32(kind + data) == checksum else b""
    return b""


def _find_description(file: BinaryIO, head: bytes) -> bytes:
    """The ImageDescription of the first page; empty where there is none that could be a note."""
    order = "<" if head[:2] == b"II" else ">"
    (at,) = struct.unpack(f"{order}4xI", head)
    file.seek(at)
    (count,) = struct.unpack(f"{order}H", file.read(2))
    for tag, kind, length, at in struct.iter_unpack(f"{order}HHII", file.read(12 * count)):
        if tag == DESCRIPTION and kind == ASCII and length <= MOST_BYTES + 1:
            file.seek(at)
            return file.read(length).removesuffix(b"\0")
    return b""
