"""Masks are no inputs, in either layout; a file of several slices is none either."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from brainseg_cli.errors import InputError
from brainseg_cli.io.images import decode_image, write_image
from brainseg_cli.io.inputs import find_inputs


def test_a_masks_folder_beside_an_images_folder_is_no_input(tmp_path: Path, rng: np.random.Generator) -> None:
    for name in ("images/p1/a.png", "images/b.png", "masks/p1/a.png", "masks/b.png", "notes/c.png"):
        write_image(tmp_path / name, rng.integers(0, 256, (8, 9, 3), dtype=np.uint8))
    found = find_inputs([str(tmp_path)])
    assert [item.relative.as_posix() for item in found] == ["images/b.png", "images/p1/a.png", "notes/c.png"]
    assert [item.patient_id for item in found] == [None, "p1", "notes"]
    alone = find_inputs([str(tmp_path / "masks")])  # asked for by name
    assert [item.relative.as_posix() for item in alone] == ["b.png", "p1/a.png"]


def test_a_tiff_of_several_pages_is_refused(rng: np.random.Generator) -> None:
    page = rng.integers(0, 256, (8, 9, 3), dtype=np.uint8)
    ok, one = cv2.imencode(".tif", page)
    assert ok and decode_image(one.tobytes(), "one.tif").shape == (8, 9, 3)
    ok, many = cv2.imencodemulti(".tif", [page, page])
    assert ok
    with pytest.raises(InputError, match="several pages"):
        decode_image(many.tobytes(), "many.tif")
