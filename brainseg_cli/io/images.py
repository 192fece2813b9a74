"""Images and masks, from bytes to arrays and back. Colour order is RGB everywhere; OpenCV's BGR ends here."""

from pathlib import Path

import cv2
import numpy as np

from brainseg_cli.errors import InputError
from brainseg_cli.io.atomic import write_bytes
from brainseg_cli.types import Image, Mask

SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
TIFF_MAGIC = (b"II*\0", b"MM\0*")
MASK_SUFFIXES = {"png": ".png", "tiff": ".tif"}

cv2.utils.logging.setLogLevel(
    cv2.utils.logging.LOG_LEVEL_SILENT
)  # a broken file is reported by us, once, with its name


def is_image_name(name: str) -> bool:
    """Whether `name` ends like an image we read; hidden files (`._x.tif` of archives) never do."""
    return name.lower().endswith(SUFFIXES) and not name.rpartition("/")[2].startswith(".")


def read_bytes(path: Path) -> bytes:
    """The file's bytes; InputError in one line where it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError("is not there", where=path) from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", where=path) from None


def decode_image(data: bytes, where: Path | str) -> Image:
    """Encoded TIFF, PNG or JPEG to uint8 (H, W, C), C in {1, 3}, RGB.

    16-bit images are scaled per image, so that one slice alone reads as it does among others: 0 stays 0 and
    the 99.9th percentile (or the maximum, where that percentile is 0) becomes 255. An alpha channel is
    dropped. InputError for anything that does not decode, or decodes to another depth or channel count.
    """
    return _to_uint8(_decode(data, where), where)


def decode_mask(data: bytes, where: Path | str) -> Mask:
    """An encoded mask to uint8 (H, W) in {0, 1}.

    Accepted values are {0, 1} and {0, 255} (a mask of one value: 0, 1 or 255), in one channel, or in three
    or four whose colours are equal. InputError names the file and the values of anything else.
    """
    raw = _decode(data, where)
    if raw.shape[2] > 1 and (raw[..., :3] != raw[..., :1]).any():
        raise InputError("is a colour image, not a mask: its channels differ", where=where)
    values = np.unique(raw[..., 0])
    if not (set(values.tolist()) <= {0, 1} or set(values.tolist()) <= {0, 255}):
        shown = ", ".join(str(v) for v in values[:8]) + (", ..." if len(values) > 8 else "")
        raise InputError(f"is not a binary mask: its values are {shown}; {{0, 1}} or {{0, 255}} are read", where=where)
    return (raw[..., 0] > 0).astype(np.uint8)


def read_image(path: Path) -> Image:
    """`decode_image` of a file."""
    return decode_image(read_bytes(path), path)


def read_mask(path: Path) -> Mask:
    """`decode_mask` of a file."""
    return decode_mask(read_bytes(path), path)


def encode_image(image: Image, suffix: str) -> bytes:
    """uint8 (H, W) or (H, W, C), RGB, to PNG (`.png`) or TIFF (`.tif`: deflate) bytes."""
    shown = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 and image.shape[2] == 3 else image
    options = [cv2.IMWRITE_TIFF_COMPRESSION, 8] if suffix == ".tif" else [cv2.IMWRITE_PNG_COMPRESSION, 4]
    ok, data = cv2.imencode(suffix, shown, options)
    if not ok:
        raise ValueError(f"OpenCV could not encode an array of shape {image.shape} as {suffix}")
    return data.tobytes()


def write_image(path: Path, image: Image) -> None:
    """Write uint8 (H, W) or (H, W, C) RGB to a `.png` or `.tif` file, whole or not at all."""
    write_bytes(path, encode_image(image, path.suffix))


def write_mask(path: Path, mask: Mask) -> None:
    """Write a mask as 0/255 to a `.png` or `.tif` file, whole or not at all."""
    write_image(path, (mask > 0).astype(np.uint8) * np.uint8(255))


def _decode(data: bytes, where: Path | str) -> np.ndarray:
    if not data:
        raise InputError("is empty", where=where)
    pixels = np.frombuffer(data, np.uint8)
    try:
        raw = cv2.imdecode(pixels, cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise InputError(f"cannot be decoded as an image: {error.err or error}", where=where) from None
    if data[:4] in TIFF_MAGIC and cv2.imdecodemulti(pixels, cv2.IMREAD_UNCHANGED, range=(1, 2))[0]:
        raise InputError("has several pages", where=where, hint="save them one slice a file")
    if raw is None:
        raise InputError("cannot be decoded as an image", where=where, hint="TIFF, PNG and JPEG are read")
    if raw.ndim == 2:
        return raw[..., None]
    if raw.shape[2] in (3, 4):
        return np.ascontiguousarray(raw[..., 2::-1])
    return raw


def _to_uint8(raw: np.ndarray, where: Path | str) -> Image:
    if raw.shape[2] not in (1, 3):
        raise InputError(f"has {raw.shape[2]} channels; images of 1 or 3 are read", where=where)
    if raw.dtype == np.uint8:
        return raw
    if raw.dtype != np.uint16:
        raise InputError(f"holds {raw.dtype} values; 8- and 16-bit images are read", where=where)
    white = float(np.percentile(raw, 99.9)) or float(raw.max()) or 1.0
    return np.rint(np.minimum(raw * (255.0 / white), 255.0)).astype(np.uint8)
