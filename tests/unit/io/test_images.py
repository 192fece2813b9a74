"""Images and masks from bytes to arrays and back, and what is said of bytes that are neither."""

import io
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as PILImage

from brainseg_cli.errors import InputError
from brainseg_cli.io.images import (
    decode_image,
    decode_mask,
    encode_image,
    is_image_name,
    read_image,
    read_mask,
    write_image,
    write_mask,
)

SHAPE = (40, 56)


def encode(array: np.ndarray, suffix: str = ".png") -> bytes:
    """As OpenCV writes it: colours are BGR here."""
    ok, data = cv2.imencode(suffix, array)
    assert ok
    return data.tobytes()


def noise(rng_seed: int, *shape: int, dtype: type = np.uint8, high: int = 256) -> np.ndarray:
    return np.random.default_rng(rng_seed).integers(0, high, shape, dtype=dtype)


def disc() -> np.ndarray:
    rows, columns = np.ogrid[:40, :56]
    return ((rows - 18) ** 2 + (columns - 30) ** 2 < 90).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_there_and_back(tmp_path: Path, suffix: str, channels: int) -> None:
    image = noise(1, *SHAPE, channels)
    write_image(tmp_path / f"Ä b{suffix}", image)
    back = read_image(tmp_path / f"Ä b{suffix}")
    assert back.dtype == np.uint8 and back.flags.c_contiguous
    np.testing.assert_array_equal(back, image)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_the_first_channel_is_red(suffix: str) -> None:
    blue_green_red = np.full((*SHAPE, 3), (10, 120, 240), np.uint8)
    decoded = decode_image(encode(blue_green_red, suffix), "x").astype(int)
    assert np.abs(decoded - (240, 120, 10)).max() <= (3 if suffix == ".jpg" else 0)


def test_an_alpha_channel_is_dropped() -> None:
    image = noise(2, *SHAPE, 4)
    np.testing.assert_array_equal(decode_image(encode(image), "x"), image[..., 2::-1])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_is_scaled_to_its_own_white(suffix: str, channels: int) -> None:
    raw = np.linspace(0, 4000, 40 * 56 * channels, dtype=np.uint16).reshape(*SHAPE, channels)
    image = decode_image(encode(raw, suffix), "x")
    assert image.shape == (*SHAPE, channels) and image.dtype == np.uint8
    assert image.min() == 0 and image.max() == 255
    order = raw if channels == 1 else raw[..., ::-1]
    np.testing.assert_allclose(image, np.minimum(order * (255 / 3996), 255), atol=0.6)


def test_16_bit_corner_cases() -> None:
    zero = np.zeros(SHAPE, np.uint16)
    assert not decode_image(encode(zero), "x").any()
    one = zero.copy()
    one[3, 4] = 900  # less than a thousandth of the pixels: the percentile is 0, the maximum stands in
    assert decode_image(encode(one), "x")[3, 4, 0] == 255
    outlier = np.full(SHAPE, 1000, np.uint16)
    outlier[0, 0] = 65535  # one hot pixel does not darken the rest
    assert (decode_image(encode(outlier), "x") == 255).all()


def test_depths_and_channel_counts_that_are_not_read() -> None:
    with pytest.raises(InputError, match="x: holds float32 values"):
        decode_image(encode(np.ones(SHAPE, np.float32), ".tif"), "x")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("white", [1, 255])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_masks_that_are_read(suffix: str, white: int, channels: int) -> None:
    raw = np.repeat((disc() * white)[..., None], channels, axis=2).astype(np.uint8)
    if channels == 4:
        raw[..., 3] = 255
    mask = decode_mask(encode(raw, suffix), "x")
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, disc())


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (1, 1), (255, 1)])
def test_a_mask_of_one_value(value: int, expected: int) -> None:
    assert (decode_mask(encode(np.full(SHAPE, value, np.uint8)), "x") == expected).all()


@pytest.mark.parametrize(
    ("values", "told"),
    [((0, 128), "0, 128;"), ((1, 255), "1, 255;"), ((0, 1, 255), "0, 1, 255;"), ((7,), "7;"), (range(10), "7, ...;")],
)
def test_a_mask_of_other_values_is_refused_by_name_and_value(tmp_path: Path, values: range, told: str) -> None:
    path = tmp_path / "odd mask.png"
    path.write_bytes(encode(np.resize(np.array(list(values), np.uint8), SHAPE)))
    with pytest.raises(InputError) as caught:
        read_mask(path)
    assert str(path) in str(caught.value) and told in str(caught.value)


def test_a_colour_image_is_not_a_mask() -> None:
    raw = np.repeat(disc()[..., None], 3, axis=2) * np.array([255, 255, 0], np.uint8)
    with pytest.raises(InputError, match="x: is a colour image, not a mask"):
        decode_mask(encode(raw), "x")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_mask_there_and_back(tmp_path: Path, suffix: str) -> None:
    write_mask(tmp_path / f"m{suffix}", disc())
    np.testing.assert_array_equal(read_mask(tmp_path / f"m{suffix}"), disc())
    assert set(np.unique(read_image(tmp_path / f"m{suffix}"))) == {0, 255}


@pytest.mark.parametrize("read", [read_image, read_mask])
def test_files_that_cannot_be_read_are_named_in_one_line(tmp_path: Path, read, capfd) -> None:
    whole = encode(noise(3, *SHAPE, 3))
    faults = {"empty.png": b"", "text.png": b"no image", "cut.png": whole[: len(whole) // 2], "head.png": whole[:20]}
    cut = encode(noise(3, *SHAPE), ".tif")
    faults["cut.tif"] = cut[: len(cut) // 2]
    for name, data in faults.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "folder.png").mkdir()
    for name in [*faults, "folder.png", "nowhere.png"]:
        with pytest.raises(InputError) as caught:
            read(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name)) and "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")  # OpenCV adds nothing of its own


def test_which_names_are_images() -> None:
    assert all(map(is_image_name, ["a.tif", "A.TIFF", "p/b.png", "c d.JPG", "e.jpeg"]))
    assert not any(map(is_image_name, ["a.csv", "._a.tif", "p/.b.png", "tif", "a.tif.gz", ".png"]))


def test_encoding_what_no_format_holds_is_a_fault_of_the_program() -> None:
    with pytest.raises((ValueError, cv2.error)):
        encode_image(np.zeros((4, 5, 2), np.uint8), ".png")


def test_pipes_and_devices_are_not_waited_for_and_no_file_is_read_without_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "device.png"):
        for read in (read_image, read_mask):
            with pytest.raises(InputError, match="is a pipe or a device, not a file"):
                read(tmp_path / name)
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match="has 1099511627776 bytes, more than the"):
        read_image(tmp_path / "sparse.png")


def test_a_tiff_that_is_to_be_turned_is_turned(rng: np.random.Generator) -> None:
    """Orientation 6, as a scanner's software may write it: what is first a row is a column."""
    pixels = rng.integers(0, 256, (40, 56), np.uint8)
    buffer = io.BytesIO()
    PILImage.fromarray(pixels).save(buffer, "TIFF", tiffinfo={274: 6})
    np.testing.assert_array_equal(decode_image(buffer.getvalue(), "turned.tif")[..., 0], np.rot90(pixels, -1))
