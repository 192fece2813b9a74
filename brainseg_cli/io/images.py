"""Images and masks, from bytes to arrays and back. Colour order is RGB everywhere; OpenCV's BGR ends here."""

import io
import math
import stat
import textwrap
import tokenize
from pathlib import Path

import cv2
import numpy as np

from brainseg_cli.errors import InputError
from brainseg_cli.io.atomic import write_bytes
from brainseg_cli.io.headers import check_header, check_pixels, read_max_pixels
from brainseg_cli.types import Image, Mask, Probs

SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
ARRAY_SUFFIX = ".npy"
PIXEL_BYTES, HEADER_BYTES = 4 * 8, 1 << 24
"""Four channels of 64 bits; and what may stand around the pixels."""
FAINT = 1 / 255
"""The largest probability of a map that could as well be a 0/1 mask."""
UNREADABLE_ARRAY = (
    ValueError, TypeError, EOFError, OverflowError, MemoryError, RecursionError, SyntaxError, tokenize.TokenError,
)  # fmt: skip
"""What NumPy raises for damage, pickles and headers that are no header."""
MASK_SUFFIXES = {"png": ".png", "tiff": ".tif"}

cv2.utils.logging.setLogLevel(
    cv2.utils.logging.LOG_LEVEL_SILENT
)  # a broken file is reported by us, once, with its name


def is_image_name(name: str) -> bool:
    """Whether `name` ends like an image we read; hidden files (`._x.tif` of archives) never do."""
    return name.lower().endswith(SUFFIXES) and not name.rpartition("/")[2].startswith(".")


def is_map_name(name: str) -> bool:
    """Whether `name` ends like what a mask or a probability map is read from: an image, or `.npy`."""
    array = name.lower().endswith(ARRAY_SUFFIX) and not name.rpartition("/")[2].startswith(".")
    return array or is_image_name(name)


def read_bytes(path: Path, *, piped: bool = False, most: int | None = None) -> bytes:
    """The file's bytes; InputError in one line where it cannot be read, or is longer than `most`.

    With `piped` a pipe is read to its end, as a list of names may come; else it is refused, as a device is: it would
    be waited for.
    """
    try:
        about = path.stat()
        if stat.S_ISDIR(about.st_mode):
            raise InputError("is a folder, not a file", where=path)
        if not stat.S_ISREG(about.st_mode) and not piped:
            raise InputError("is a pipe or a device, not a file", where=path)
        if most is not None and about.st_size > most:
            raise InputError(f"has {about.st_size} bytes, more than the {most} that are read", where=path)
        return path.read_bytes()
    except FileNotFoundError:
        told = "is a link to what is not there" if path.is_symlink() else "is not there"
        raise InputError(told, where=path) from None
    except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
        raise InputError(f"cannot be read: {getattr(error, 'strerror', None) or error}", where=path) from None
    except MemoryError:
        raise InputError("is larger than the memory there is", where=path) from None


def read_encoded(path: Path) -> bytes:
    """`read_bytes` of an image or an array that is not longer than `most_encoded`."""
    return read_bytes(path, most=most_encoded())


def most_encoded() -> int:
    """How many bytes an image of as many pixels as may be has at most, encoded: hardly more than its pixels."""
    return PIXEL_BYTES * read_max_pixels() + HEADER_BYTES


def decode_image(data: bytes, where: Path | str) -> Image:
    """Encoded TIFF, PNG or JPEG to uint8 (H, W, C), C in {1, 3}, RGB.

    16-bit images are scaled per image, so that one slice alone reads as it does among others: 0 stays 0 and
    the 99.9th percentile (or the maximum, where that percentile is 0) becomes 255. An alpha channel is
    dropped. InputError for anything that `check_header` refuses, that does not decode, or decodes to another depth or
    channel count.
    """
    return to_uint8(_decode(data, where), where)


def decode_mask(data: bytes, where: Path | str) -> Mask:
    """An encoded mask to uint8 (H, W) in {0, 1}.

    Accepted values are {0, 1} and {0, 255} (a mask of one value: 0, 1 or 255), in one channel, or in three
    or four whose colours are equal. InputError names the file and the values of anything else.
    """
    return _to_mask(_decode(data, where), where)


def read_image(path: Path) -> Image:
    """`decode_image` of a file."""
    return decode_image(read_encoded(path), path)


def read_mask(path: Path, *, hint: str | None = None) -> Mask:
    """`decode_mask` of a file, or of an array in a `.npy` file, whose numbers may then be booleans or floats too.

    An array is (H, W), (1, H, W) or (H, W, 1). `hint` is what to do about a file that is not binary.
    """
    return _to_mask(_read_map(path), path, hint)


def read_probs(path: Path, *, faint: bool = False) -> Probs:
    """A map of probabilities: 8 bits are divided by 255, 16 bits by 65535, floats taken as they are.

    From a TIFF, PNG or JPEG of one channel (or of equal ones), or a `.npy` as for `read_mask`. InputError for
    floats that leave [0, 1] or are NaN, for other types, and, unless `faint`, for whole numbers that come to
    nothing above 1/255: that is a map which is all but empty, or a mask of 0 and 1, and the file cannot say.
    """
    grey = _to_grey(_read_map(path), path, "probability map")
    if grey.dtype in (np.uint8, np.uint16):
        probs: Probs = grey.astype(np.float32) / np.float32(np.iinfo(grey.dtype).max)
        if not faint and 0 < probs.max() <= np.float32(FAINT):
            raise InputError(
                f"holds nothing above {grey.max()}: a mask, or an all but empty probability map",
                where=path,
                hint="masks are read without --threshold",
            )
        return probs
    if grey.dtype.kind != "f":
        raise InputError(
            f"holds {grey.dtype} values; a probability map is of 8 or 16 bits or of floats",
            where=path,
            hint="masks are read without --threshold",
        )
    if not ((grey >= 0) & (grey <= 1)).all():  # NaN is neither
        raise InputError(f"holds {_outside(grey)}; probabilities lie in [0, 1]", where=path, hint="apply the sigmoid")
    return grey.astype(np.float32)


def encode_image(image: Image, suffix: str) -> bytes:
    """uint8 (H, W) or (H, W, C), RGB, to PNG (`.png`), TIFF (`.tif`: deflate) or JPEG (`.jpg`) bytes."""
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
    header = check_header(data, where)
    try:
        raw = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise InputError(f"cannot be decoded as an image: {error.err or error}", where=where) from None
    if raw is None or sorted(raw.shape[:2]) != sorted((header.height, header.width)):  # a TIFF may be turned
        told = "cannot be decoded as an image: it is damaged, or of a kind that is not read"
        raise InputError(told, where=where, hint=str(header))
    if raw.ndim == 2:
        return raw[..., None]
    if raw.shape[2] in (3, 4):
        colours = np.empty((*raw.shape[:2], 3), raw.dtype)
        cv2.mixChannels([raw], [colours], [0, 2, 1, 1, 2, 0])  # a quarter of the time of a strided copy
        return colours
    return raw


def _read_map(path: Path) -> np.ndarray:
    """(H, W, C) of any type: an image in RGB, or an array."""
    data = read_encoded(path)
    return _decode_array(data, path) if path.suffix.lower() == ARRAY_SUFFIX else _decode(data, path)


def _decode_array(data: bytes, where: Path) -> np.ndarray:
    try:
        file = io.BytesIO(data)
        _check_array_header(file, where)
        array = np.lib.format.read_array(file, allow_pickle=False)
    except UNREADABLE_ARRAY as error:
        told = textwrap.shorten(str(error), 120)
        raise InputError(f"cannot be read as an array: {told}", where=where, hint="np.save writes one") from None
    plane = array[0] if array.ndim == 3 and array.shape[0] == 1 else array
    plane = plane[..., 0] if plane.ndim == 3 and plane.shape[2] == 1 else plane
    if plane.ndim != 2 or not plane.size or plane.dtype.kind not in "buif":
        raise InputError(
            f"is an array of shape {array.shape} and type {array.dtype}",
            where=where,
            hint="numbers of shape (H, W), (1, H, W) or (H, W, 1) are read, one slice a file",
        )
    return plane[..., None].astype(plane.dtype.newbyteorder("="), copy=False)


def _check_array_header(file: io.BytesIO, where: Path) -> None:
    """Before anything is allocated. Leaves `file` at its start; ValueError where it says more than it holds."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if min(shape, default=1) < 0 or dtype.itemsize * math.prod(shape) > len(file.getbuffer()) - file.tell():
        raise ValueError(f"shape {shape} of {dtype} is more than the file holds")
    if math.prod(shape):
        check_pixels(math.prod(shape), 1, where)
    file.seek(0)


def _to_grey(raw: np.ndarray, where: Path | str, what: str) -> np.ndarray:
    """(H, W, C) to (H, W). InputError where the channels are not the same."""
    if raw.shape[2] > 1 and (raw[..., :3] != raw[..., :1]).any():
        raise InputError(f"is a colour image, not a {what}: its channels differ", where=where)
    return raw[..., 0]


def _to_mask(raw: np.ndarray, where: Path | str, hint: str | None = None) -> Mask:
    grey = _to_grey(raw, where, "mask")
    most = grey.max()
    if most not in (0, 1, 255) or not ((grey == 0) | (grey == most)).all():
        values = np.unique(grey)
        shown = ", ".join(str(v) for v in values[:8]) + (", ..." if len(values) > 8 else "")
        told = f"is not a binary mask: its values are {shown}; {{0, 1}} or {{0, 255}} are read"
        raise InputError(told, where=where, hint=hint)
    return (grey > 0).astype(np.uint8)


def _outside(grey: np.ndarray) -> str:
    return "NaN" if np.isnan(grey).any() else f"values from {grey.min():g} to {grey.max():g}"


def to_uint8(raw: np.ndarray, where: Path | str) -> Image:
    """(H, W, C) of 8 or 16 bits to uint8, 16 bits as `decode_image` says. InputError for anything else."""
    if raw.shape[2] not in (1, 3):
        raise InputError(f"has {raw.shape[2]} channels; images of 1 or 3 are read", where=where)
    if raw.dtype == np.uint8:
        return raw
    if raw.dtype != np.uint16:
        raise InputError(f"holds {raw.dtype} values; 8- and 16-bit images are read", where=where)
    white = float(np.percentile(raw, 99.9)) or float(raw.max()) or 1.0
    return np.rint(np.minimum(raw * (255.0 / white), 255.0)).astype(np.uint8)
