"""Nobody takes a figure on patients whom a built-in model was trained on for a measure of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainseg_cli.evaluate.folders import measure_folders
from brainseg_cli.io.images import write_image
from brainseg_cli.models.built_in import DEFAULT_MODEL, FOLDER
from brainseg_cli.models.locate import open_bundle
from brainseg_cli.models.trained_on import find_seen, find_trained_on, list_patients

CPU = ("--runtime", "torch", "--device", "cpu")


@pytest.fixture
def slices(tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two patients of two slices, one of them a training patient of the built-in model, with references beside them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for patient in (min(list_patients(DEFAULT_MODEL)), "TCGA_XX_0000_20000101"):
        for number in (1, 2):
            place = tmp_path / "in" / patient / f"{patient}_{number}.png"
            write_image(place, rng.integers(0, 256, (40, 56, 3), np.uint8))
            write_image(place.with_name(f"{place.stem}_mask.png"), np.full((40, 56), 255, np.uint8))
    return tmp_path / "in"


def test_the_built_in_model_knows_its_patients() -> None:
    own = open_bundle(FOLDER / DEFAULT_MODEL).sha256
    assert find_trained_on([own]) == {DEFAULT_MODEL: list_patients(DEFAULT_MODEL)}
    assert len(list_patients(DEFAULT_MODEL)) == 80
    assert find_trained_on(["0" * 64, None]) == find_trained_on([]) == {}


def test_predict_says_so_once(slices: Path, tmp_path: Path, brainseg: Callable[..., Any]) -> None:
    ended = brainseg("predict", slices, "-o", tmp_path / "masks", *CPU)
    told = f"{DEFAULT_MODEL} was trained on 1 patient of these: no mask of theirs measures it"
    assert ended.code == 0 and ended.err.count(told) == 1


def test_eval_of_its_masks_is_leaky(slices: Path, tmp_path: Path, run: Path, brainseg: Callable[..., Any]) -> None:
    for name, model in (("masks", ()), ("others", ("-m", run))):
        assert brainseg("predict", slices, "-o", tmp_path / name, *model, *CPU).code == 0
    found = measure_folders(slices, tmp_path / "masks")
    assert found.about["leaky"]
    assert (
        f"LEAKY: {DEFAULT_MODEL} made these masks, and was trained on 1 patient of those measured here" in found.notes
    )
    assert not measure_folders(slices, tmp_path / "others").about["leaky"]  # of the run, who has not seen them
    stranger = tmp_path / "stranger.csv"
    stranger.write_text("patient_id,split\nTCGA_XX_0000_20000101,test\n")
    assert not measure_folders(slices, tmp_path / "masks", patients=stranger).about["leaky"]


def test_in_one_folder_for_all_the_files_names_tell(slices: Path, tmp_path: Path, brainseg: Callable[..., Any]) -> None:
    for path in slices.glob("*/*"):
        path.rename(slices / path.name)
    ended = brainseg("predict", slices, "-o", tmp_path / "masks", *CPU)
    told = f"{DEFAULT_MODEL} was trained on 1 patient of these: no mask of theirs measures it"
    assert ended.code == 0 and ended.err.count(told) == 1
    assert measure_folders(slices, tmp_path / "masks").about["leaky"]


def test_a_mask_that_says_nothing_or_nonsense_has_seen_nobody(tmp_path: Path) -> None:
    from brainseg_cli.io.embedded import encode_mask

    patient = min(list_patients(DEFAULT_MODEL))
    for number, about in enumerate((None, {}, {"provenance": 3}, {"provenance": {"model_sha256": "x"}})):
        path = tmp_path / f"{number}.png"
        path.write_bytes(encode_mask(np.zeros((4, 4), np.uint8), ".png", about))
        assert find_seen([(patient, path)]) == {}
