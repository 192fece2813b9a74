"""Probability maps, and masks in arrays: what numbers become, and what is refused rather than guessed."""

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from brainseg_cli.errors import InputError
from brainseg_cli.io.images import is_map_name, read_mask, read_probs

SHAPE = (5, 7)


def save(path: Path, array: np.ndarray) -> Path:
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        ok, data = cv2.imencode(path.suffix, array)
        assert ok
        path.write_bytes(data.tobytes())
    return path


def fault(path: Path, read: Any = read_probs, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(path, **options)
    told = str(caught.value)
    assert told.startswith(f"{path}: ") and "\n" not in told
    return told


def block(dtype: Any = np.uint8, value: Any = 1) -> np.ndarray:
    array = np.zeros(SHAPE, dtype)
    array[1:3, 2:6] = value
    return array


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535)])
def test_every_value_of_a_depth_becomes_its_share(tmp_path: Path, suffix: str, dtype: type, top: int) -> None:
    values = np.arange(top + 1, dtype=dtype).reshape(-1, 32)
    probs = read_probs(save(tmp_path / f"p{suffix}", values))
    assert probs.dtype == np.float32 and probs.shape == values.shape
    exact = values.astype(np.float64) / top
    np.testing.assert_array_equal(probs, exact.astype(np.float32))
    assert probs[0, 0] == 0 and probs[-1, -1] == 1


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", ">f8"])
def test_floats_are_taken_as_they_are(tmp_path: Path, dtype: str, rng: np.random.Generator) -> None:
    values = rng.random(SHAPE).astype(dtype)
    values[0, :2] = 0, 1
    probs = read_probs(save(tmp_path / "p.npy", values))
    assert probs.dtype == np.float32 and probs.dtype.isnative
    np.testing.assert_array_equal(probs, values.astype(np.float32))


def test_byte_order_does_not_matter(tmp_path: Path) -> None:
    values = np.array([[0, 258, 65535]], ">u2")
    np.testing.assert_array_equal(read_probs(save(tmp_path / "p.npy", values))[0], np.float32([0, 258 / 65535, 1]))


def test_a_float_tiff_is_a_map_too(tmp_path: Path, rng: np.random.Generator) -> None:
    values = rng.random(SHAPE, dtype=np.float32)
    np.testing.assert_array_equal(read_probs(save(tmp_path / "p.tif", values)), values)


@pytest.mark.parametrize("read", [read_mask, read_probs])
@pytest.mark.parametrize("shape", [SHAPE, (1, *SHAPE), (*SHAPE, 1)])
def test_an_axis_of_one_is_dropped(tmp_path: Path, read: Any, shape: tuple[int, ...]) -> None:
    path = save(tmp_path / "p.npy", block(np.float32).reshape(shape))
    np.testing.assert_array_equal(read(path), block())


def test_rows_stay_rows_in_fortran_order(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_mask(save(tmp_path / "p.npy", np.asfortranarray(block()))), block())


@pytest.mark.parametrize("read", [read_mask, read_probs])
@pytest.mark.parametrize("shape", [(2, *SHAPE), (*SHAPE, 3), (1, 1, *SHAPE), (35,), (), (0, 7)])
def test_other_shapes_are_refused(tmp_path: Path, read: Any, shape: tuple[int, ...]) -> None:
    assert f"array of shape {shape}" in fault(save(tmp_path / "p.npy", np.zeros(shape)), read)


@pytest.mark.parametrize("value", [np.nan, -1e-6, 1.0001, 255.0, np.inf])
def test_what_is_no_probability_is_refused(tmp_path: Path, value: float) -> None:
    told = fault(save(tmp_path / "p.npy", block(np.float64, value)))
    assert "[0, 1]" in told and ("NaN" in told) == bool(np.isnan(value))


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int64, np.uint32])
def test_types_without_a_scale_are_no_map_but_may_be_a_mask(tmp_path: Path, dtype: type) -> None:
    path = save(tmp_path / "p.npy", block(dtype))
    assert f"holds {np.dtype(dtype)} values" in fault(path) and "without --threshold" in fault(path)
    np.testing.assert_array_equal(read_mask(path), block())


@pytest.mark.parametrize("value", ["x", 1j, np.datetime64("2020-01-01")])
def test_numbers_only(tmp_path: Path, value: Any) -> None:
    path = save(tmp_path / "p.npy", np.full(SHAPE, value))
    assert "array of shape (5, 7) and type" in fault(path, read_mask)


@pytest.mark.parametrize("suffix", [".png", ".npy"])
@pytest.mark.parametrize(("dtype", "most"), [(np.uint8, 1), (np.uint16, 257), (np.uint16, 1)])
def test_an_all_but_empty_map_may_be_a_mask_and_is_not_guessed_at(
    tmp_path: Path, suffix: str, dtype: type, most: int
) -> None:
    path = save(tmp_path / f"p{suffix}", block(dtype, most))
    assert f"holds nothing above {most}: a mask, or" in fault(path)
    assert read_probs(path, faint=True).max() == np.float32(most / np.iinfo(dtype).max)
    one_more = save(tmp_path / f"q{suffix}", block(dtype, most + 1 if most > 1 else np.iinfo(dtype).max))
    assert read_probs(one_more).max() > 1 / 255
    assert not read_probs(save(tmp_path / f"r{suffix}", np.zeros(SHAPE, dtype))).any()  # both ways the same


@pytest.mark.parametrize(("dtype", "white"), [(bool, True), (np.uint8, 255), (np.int64, 1), (np.float32, 1.0)])
def test_masks_in_arrays(tmp_path: Path, dtype: type, white: Any) -> None:
    mask = read_mask(save(tmp_path / "m.NPY".lower(), block(dtype, white)))
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, block())


@pytest.mark.parametrize("value", [0.5, np.nan, 2.0, -1.0])
def test_an_array_that_is_not_binary_is_no_mask(tmp_path: Path, value: float) -> None:
    path = save(tmp_path / "m.npy", block(np.float32, value))
    assert fault(path, read_mask).endswith("{0, 1} or {0, 255} are read")
    assert fault(path, read_mask, hint="try this").endswith("(try this)")


def test_colours_are_no_probabilities(tmp_path: Path, rng: np.random.Generator) -> None:
    grey = rng.integers(0, 256, (*SHAPE, 1), dtype=np.uint8)
    equal = save(tmp_path / "equal.png", np.repeat(grey, 3, axis=2))
    np.testing.assert_array_equal(read_probs(equal), grey[..., 0] / np.float32(255))
    assert "colour image, not a probability map" in fault(save(tmp_path / "c.png", np.dstack([grey, grey, 255 - grey])))


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    np.save(tmp_path / "p.npy", np.array([[Trap()]]), allow_pickle=True)
    for read in (read_mask, read_probs):
        assert "allow_pickle" in fault(tmp_path / "p.npy", read)
    assert not (tmp_path / "sprung").exists()


def test_damage_ends_in_one_line(tmp_path: Path) -> None:
    """A cut or a wrong byte anywhere: refused, or read as something of the right kind; never another exception."""
    stream = io.BytesIO()
    np.save(stream, block(np.float32))
    whole, path, refused = stream.getvalue(), tmp_path / "p.npy", 0
    damaged = [whole[:length] for length in range(0, len(whole), 7)]
    damaged += [whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :] for at in range(132) for flip in (1, 0x5A)]
    damaged += [whole.replace(b"(5, 7)", size) for size in (b"(5, -7)", b"(99999999999, 99999999)", b"([], {[]: 1})")]
    zipped = io.BytesIO()
    np.savez(zipped, block())
    for data in [*damaged, zipped.getvalue(), b"no array"]:
        path.write_bytes(data)
        try:
            assert read_probs(path).dtype == np.float32
        except InputError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    assert refused > 100
    assert "is not there" in fault(tmp_path / "none.npy")


def test_which_names_are_maps() -> None:
    assert all(map(is_map_name, ["a.npy", "p/B.NPY", "a.png", "c.TIFF"]))
    assert not any(map(is_map_name, ["a.npz", ".a.npy", "p/.a.npy", "npy", "a.npy.gz", "._a.png"]))
